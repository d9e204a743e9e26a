package main

import (
	"reflect"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

func TestParseRoles(t *testing.T) {
	for text, want := range map[string]cluster.RoleGrant{
		"auditor":                  {Role: "auditor"},
		"crypto-user=payments":     {Role: "crypto-user", Slots: []string{"payments"}},
		"crypto-officer=a b,tls=1": {Role: "crypto-officer", Slots: []string{"a b", "tls=1"}},
	} {
		got, err := parseRoles([]string{text})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"crypto-user=", "crypto-user=a,,b", "crypto-user=,"} {
		if got, err := parseRoles([]string{bad}); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}
