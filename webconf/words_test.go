package webconf

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestEveryActHasAWord holds actWords against what can stand in the audit trail: what apply writes by itself,
// what policies are about, and the acts that package node begins.
func TestEveryActHasAWord(t *testing.T) {
	acts := cluster.TrailActs()
	for _, p := range cluster.PolicyActs() {
		acts = append(acts, p.Act)
	}
	begun := nodeActs(t)
	if len(begun) < 15 {
		t.Errorf("only %d acts were found in package node: %v", len(begun), begun)
	}
	known := map[string]bool{}
	for _, a := range append(acts, begun...) {
		known[a] = true
		if actWords[a] == "" {
			t.Errorf("the act %q has no word", a)
		}
	}
	for a := range actWords {
		if !known[a] {
			t.Errorf("there is a word for %q, which nothing does", a)
		}
	}
}

// nodeActs finds the names in the values of type act in package node, which is the only way to begin one.
func nodeActs(t *testing.T) (names []string) {
	t.Helper()
	packages, err := parser.ParseDir(token.NewFileSet(), "../node", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{} // constants
	var given []ast.Expr
	ast.Inspect(packages["node"], func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for i, v := range n.Values {
				if text, ok := literal(v); ok {
					texts[n.Names[i].Name] = text
				}
			}
		case *ast.CompositeLit:
			if kind, ok := n.Type.(*ast.Ident); ok && kind.Name == "act" {
				given = append(given, actName(n))
			}
		}
		return true
	})
	for _, e := range given {
		text, ok := literal(e)
		if name, isName := e.(*ast.Ident); isName {
			text, ok = texts[name.Name]
		}
		if !ok {
			t.Errorf("the name of an act is neither a text nor a constant: %v", e)
			continue
		}
		names = append(names, text)
	}
	return names
}

// actName is the field "name" of an act, which is the third.
func actName(n *ast.CompositeLit) ast.Expr {
	for i, e := range n.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if pair.Key.(*ast.Ident).Name == "name" {
				return pair.Value
			}
		} else if i == 2 {
			return e
		}
	}
	return nil
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
