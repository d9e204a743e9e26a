package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// secrets asks for codes: on a terminal without showing them, otherwise one to a line of standard input.
// They are never arguments, because those are visible to every user of the machine.
func (a *app) secrets(prompts ...string) ([][]byte, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return a.askSecrets(f, prompts)
	}
	r := bufio.NewReader(a.in)
	a.in = r
	var all [][]byte
	for _, p := range prompts {
		line, err := r.ReadBytes('\n')
		if err != nil && !(errors.Is(err, io.EOF) && len(line) > 0) {
			return nil, fmt.Errorf("%s is read from standard input, and there is none: %w", p, err)
		}
		all = append(all, bytes.TrimRight(line, "\r\n"))
	}
	return all, nil
}

func (a *app) askSecrets(f *os.File, prompts []string) ([][]byte, error) {
	var all [][]byte
	for _, p := range prompts {
		fmt.Fprintf(a.err, "%s: ", p)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// newSecret asks for a code that is being chosen: twice on a terminal, where a slip would not be seen.
func (a *app) newSecret(prompt string) ([]byte, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		s, err := a.secrets(prompt)
		if err != nil {
			return nil, err
		}
		return s[0], nil
	}
	s, err := a.askSecrets(f, []string{prompt, "The same again"})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(s[0], s[1]) {
		return nil, errors.New("the two are not the same")
	}
	return s[0], nil
}

// confirm asks before something is overwritten or believed. Where nobody can be asked, only --yes goes on.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%s Nothing was done: nobody can be asked here; --yes says so beforehand", question)
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(f).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err == nil && (answer == "y" || answer == "yes") {
		return nil
	}
	return errors.New("nothing was done")
}
