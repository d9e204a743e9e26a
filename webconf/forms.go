package webconf

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/labstack/echo/v4"
)

// A form is what somebody sent and what was wrong with it. It keeps what was entered so that it can be
// shown again, but never codes and passwords: those are taken out when the form is read.
type form struct {
	Name    string // which form of a page it is
	Values  url.Values
	Errors  []fieldError
	secrets url.Values
	status  int // of the answer that shows it again
}

// A fieldError is one thing that was wrong. Field is empty where no single field is to blame.
type fieldError struct{ Field, Text string }

// readForm reads a posted form. The named fields are secret; a name that ends in a star is how some begin.
func (c *call) readForm(name string, secret ...string) (*form, error) {
	r := c.Request()
	if err := r.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, err
		}
		return nil, echo.NewHTTPError(http.StatusBadRequest, "the form cannot be read")
	}
	f := &form{Name: name, Values: url.Values{}, secrets: url.Values{}, status: http.StatusUnprocessableEntity}
	for k, v := range r.PostForm {
		if slices.ContainsFunc(secret, func(name string) bool { return matches(name, k) }) {
			f.secrets[k] = v
		} else {
			f.Values[k] = v
		}
	}
	return f, nil
}

// matches tells whether a field has a name, or begins with it where that ends in a star.
func matches(name, field string) bool {
	prefix, open := strings.CutSuffix(name, "*")
	return name == field || open && strings.HasPrefix(field, prefix)
}

// newForm is a form that nobody has filled in, with what stands in its fields at first.
func newForm(name string, values map[string]string) *form {
	f := &form{Name: name, Values: url.Values{}}
	for k, v := range values {
		f.Values.Set(k, v)
	}
	return f
}

// text is a line that was entered, without the spaces that copying leaves around it.
func (f *form) text(field string) string { return strings.TrimSpace(f.Values.Get(field)) }

// code is an authentication code as it was entered: with its spaces, which tokens count.
func (f *form) code(field string) []byte { return []byte(f.secrets.Get(field)) }

func (f *form) secret(field string) string { return f.secrets.Get(field) }

// fail says what is wrong with a field.
func (f *form) fail(field, format string, args ...any) {
	f.Errors = append(f.Errors, fieldError{field, fmt.Sprintf(format, args...)})
}

// twice checks that a new code or password was entered the same way twice: mistyped ones are nobody's.
func (f *form) twice(field, again, what string) {
	if f.secrets.Get(field) != f.secrets.Get(again) {
		f.fail(again, "The two entries of the %s differ. Enter it twice, the same way.", what)
	}
}

func (f *form) ok() bool { return len(f.Errors) == 0 }

// blame makes an error that is about what was entered one of a field. Other errors come back.
func (f *form) blame(field string, err error) error {
	v := judge(err)
	if approvalOf(err) != "" || v.code == "internal" || v.code == "denied" && v.status != http.StatusUnauthorized {
		return err
	}
	if v.status == http.StatusUnauthorized || v.status == http.StatusTooManyRequests || v.status >= http.StatusInternalServerError {
		f.status = v.status
	}
	f.fail(field, "%s", sentence(v.message))
	return nil
}

// version is that of the object that the form showed, for the command that replaces it: nil where a program sent
// the form without one.
func (f *form) version(field string) (*uint64, error) {
	if !f.Values.Has(field) {
		return nil, nil
	}
	v, err := strconv.ParseUint(f.text(field), 10, 64)
	if err != nil {
		return nil, echo.NewHTTPError(http.StatusBadRequest, "the form is about no version: open its page again")
	}
	return &v, nil
}

func versionText(v uint64) string { return strconv.FormatUint(v, 10) }

// outdated tells whether the form was refused because somebody changed meanwhile what it shows. It says so, and
// the page then shows what there is now instead of what was entered.
func (f *form) outdated(err error) bool {
	if !errors.Is(err, cluster.Changed) {
		return false
	}
	f.fail("", "%s", sentence(judge(err).message))
	f.status = http.StatusConflict
	return true
}

// Value is what stands in a field.
func (f *form) Value(field string) string {
	if f == nil {
		return ""
	}
	return f.Values.Get(field)
}

// A given is a field with its value.
type given struct{ Name, Value string }

// Given are those of the fields that have a value, for a page that keeps what it does not ask for.
func (f *form) Given(fields ...string) []given {
	var list []given
	for _, name := range fields {
		if v := f.Value(name); v != "" {
			list = append(list, given{name, v})
		}
	}
	return list
}

// Has tells whether one of several boxes with the same name is ticked.
func (f *form) Has(field, value string) bool {
	return f != nil && slices.Contains(f.Values[field], value)
}

// Error is what is wrong with a field.
func (f *form) Error(field string) string {
	if f == nil {
		return ""
	}
	for _, e := range f.Errors {
		if e.Field == field {
			return e.Text
		}
	}
	return ""
}

// Of returns f if it is the form with this name, so that of several forms of a page the right one shows
// what was wrong.
func (f *form) Of(name string) *form {
	if f == nil || f.Name != name {
		return nil
	}
	return f
}

// An input is one field of a form as the template draws it.
type input struct {
	ID, Name, Type, Label, Hint, Value, Error, Autocomplete string
	Optional, Readonly                                      bool
	Mark                                                    bool // say that it is optional
	Min, Max                                                int  // characters, or the number itself; 0: no limit
	Pattern                                                 string
}

// newInput makes a field of the form with the given name, filled from f if that is this form. Options are
// pairs of name and value.
func newInput(f *form, formName, name, label string, options ...any) (input, error) {
	f = f.Of(formName)
	in := input{ID: formName + "-" + name, Name: name, Type: "text", Label: label, Value: f.Value(name), Error: f.Error(name), Autocomplete: "off", Mark: true}
	for i := 0; i+1 < len(options); i += 2 {
		var ok bool
		switch options[i] {
		case "hint":
			in.Hint, ok = options[i+1].(string)
		case "type":
			in.Type, ok = options[i+1].(string)
		case "autocomplete":
			in.Autocomplete, ok = options[i+1].(string)
		case "pattern":
			in.Pattern, ok = options[i+1].(string)
		case "optional":
			in.Optional, ok = options[i+1].(bool)
		case "mark":
			in.Mark, ok = options[i+1].(bool)
		case "readonly":
			in.Readonly, ok = options[i+1].(bool)
		case "min":
			in.Min, ok = options[i+1].(int)
		case "max":
			in.Max, ok = options[i+1].(int)
		}
		if !ok {
			return in, fmt.Errorf("input %s: there is no option %v of that type", name, options[i])
		}
	}
	return in, nil
}
