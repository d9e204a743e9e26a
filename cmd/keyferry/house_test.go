package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// house is the picture of the packages: who may import whom, and which of the large libraries belongs to
// whom. A package that is not here has no place yet.
//
//	        cmd/keyferry
//	             |
//	          webconf --- assets
//	             |
//	            node
//	   +---------+---------+
//	   |      identity     |
//	   v         v         v
//	cluster     hsm     syncpkg
//
// hsm/worker is the other end of hsm's pipe: only the program itself starts it.
var house = map[string][]string{
	"cmd/keyferry": {"cluster", "hsm", "hsm/worker", "identity", "node", "syncpkg", "webconf"},
	"webconf":      {"assets", "cluster", "hsm", "identity", "node", "syncpkg"},
	"node":         {"cluster", "hsm", "identity", "syncpkg"},
	"identity":     {"hsm"},
	"cluster":      {},
	"hsm":          {},
	"hsm/worker":   {"hsm"},
	"hsm/hsmtest":  {"hsm", "hsm/worker"},
	"syncpkg":      {},
	"assets":       {},
	"bench":        {},
}

var owners = map[string][]string{
	"github.com/labstack/echo":     {"webconf"},
	"github.com/gorilla/":          {"webconf"},
	"github.com/hashicorp/raft":    {"cluster"},
	"github.com/miekg/pkcs11":      {"hsm/worker", "bench"},
	"github.com/spf13/cobra":       {"cmd/keyferry"},
	"github.com/pelletier/go-toml": {"cmd/keyferry"},
	"go.etcd.io/bbolt":             {"cluster", "node"},
	"golang.org/x/crypto":          {"node"},
	"net/http":                     {"cmd/keyferry", "webconf", "node", "cluster"},
}

// TestHouse compares the imports with the picture.
func TestHouse(t *testing.T) {
	const module = "github.com/keyferry/keyferry/"
	out, err := exec.CommandContext(t.Context(), hsmtest.Tool(t, "go"), "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		may, ok := house[name]
		if !ok {
			t.Errorf("package %s is not in the picture", name)
			continue
		}
		seen++
		for _, i := range p.Imports {
			if other, ours := strings.CutPrefix(i, module); ours && !slices.Contains(may, other) {
				t.Errorf("%s imports %s, which the picture does not allow", name, other)
			}
			for library, who := range owners {
				if strings.HasPrefix(i, library) && !slices.Contains(who, name) {
					t.Errorf("%s imports %s, which belongs to %v", name, i, who)
				}
			}
		}
	}
	if seen != len(house) {
		t.Errorf("%d packages of the picture's %d are there", seen, len(house))
	}
}
