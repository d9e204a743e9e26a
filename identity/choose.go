package identity

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Choice is one of the devices that a list can name.
type Choice struct {
	Number int
	Serial string
	Name   string // of a node; empty where devices have none
}

// Choose reads a list of devices as people write it: numbers, sn:SERIAL, names, separated by commas, or "all". It
// returns indexes into among, in the order of the list and each once.
func Choose(list string, among []Choice) ([]int, error) {
	if len(among) == 0 {
		return nil, errors.New("there are no devices to choose from")
	}
	var chosen []int
	if list == "all" {
		for i := range among {
			chosen = append(chosen, i)
		}
		return chosen, nil
	}
	for _, word := range strings.Split(list, ",") {
		i, err := chooseOne(strings.TrimSpace(word), among)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(chosen, i) {
			chosen = append(chosen, i)
		}
	}
	return chosen, nil
}

func chooseOne(word string, among []Choice) (int, error) {
	serial, bySerial := strings.CutPrefix(word, "sn:")
	number, err := strconv.Atoi(word)
	byNumber := err == nil
	found := -1
	for i, c := range among {
		named := c.Name != "" && c.Name == word
		if bySerial && c.Serial == serial || byNumber && c.Number == number || named && !bySerial {
			if found >= 0 {
				return 0, fmt.Errorf("%q is claimed by two devices, so neither can be meant", word)
			}
			found = i
		}
	}
	if found < 0 {
		return 0, fmt.Errorf("there is no device %q: name one by its number or as sn:SERIAL (there are %s), several with commas between, or \"all\"", word, listed(among))
	}
	return found, nil
}

// listed names the first few, for whoever mistyped one.
func listed(among []Choice) string {
	const most = 8
	var names []string
	for i, c := range among {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(among)-most))
			break
		}
		names = append(names, fmt.Sprintf("%d = sn:%s", c.Number, c.Serial))
	}
	return strings.Join(names, ", ")
}
