package main

import "testing"

func TestClockWords(t *testing.T) {
	for want, c := range map[string]clock{
		"clock agrees":                            {},
		"clock 0.3 s ahead":                       {Ahead: 0.3, Within: 0.001},
		"clock 0.3 s behind":                      {Ahead: -0.3, Within: 0.001},
		"clock 45 s behind, which is too far off": {Ahead: -45, Within: 0.5, Past: true},
	} {
		if got := c.words(); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
	for _, c := range []clock{{Ahead: -0.04}, {Ahead: -1e-9}, {Ahead: 0.05}, {Ahead: -1.5, Within: 2}} {
		if got := c.words(); got != "clock agrees" {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
