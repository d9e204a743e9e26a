package webconf

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/assets"
)

// TestStatic: compressed where that helps, kept for ever under the right hash, and only then.
func TestStatic(t *testing.T) {
	a := newCluster(t, 1)[0]
	b := a.browser(t)
	s := a.web.static
	plain := b.get(s.url("console.css"), "Accept-Encoding", "identity")
	zipped := b.get(s.url("console.css"), "Accept-Encoding", "gzip")
	if plain.header.Get("Content-Type") != "text/css; charset=utf-8" || plain.header.Get("Content-Encoding") != "" || zipped.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("headers: %v, %v", plain.header, zipped.header)
	}
	r, err := gzip.NewReader(strings.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if unzipped, err := io.ReadAll(r); err != nil || string(unzipped) != plain.body {
		t.Errorf("the compressed file is another one: %v", err)
	}
	if cache := plain.header.Get("Cache-Control"); !strings.Contains(cache, "immutable") || zipped.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("Cache-Control %q, Vary %q", cache, zipped.header.Get("Vary"))
	}
	if old := b.get("/static/000000000000/console.css"); old.status != http.StatusOK || old.header.Get("Cache-Control") != "no-store" {
		t.Errorf("an old address: %d, %q", old.status, old.header.Get("Cache-Control"))
	}
	if font := b.get(s.url("inter.woff2"), "Accept-Encoding", "gzip"); font.header.Get("Content-Type") != "font/woff2" || font.header.Get("Content-Encoding") != "" {
		t.Errorf("the font: %v", font.header)
	}
	for name, f := range s.files {
		if f.kind == "" {
			t.Errorf("%s has no type", name)
		}
	}
	for _, path := range []string{"/static/x/..%2f..%2fgo.mod", "/static/x/", "/static/x/templates"} {
		b.get(path).wants(t, http.StatusNotFound)
	}
}

// TestIcons: each icon that is named is in the sprite, and each in the sprite is named somewhere.
func TestIcons(t *testing.T) {
	sprite, err := fs.ReadFile(assets.Static(), "icons.svg")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`<symbol id="([a-z]+)"`).FindAllSubmatch(sprite, -1) {
		there[string(m[1])] = true
	}
	files, err := newStatic()
	if err != nil {
		t.Fatal(err)
	}
	views, err := newViews(files)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, p := range everyPage() {
		html, err := views.draw(p.page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`icons\.svg#([^"]*)"`).FindAllSubmatch(html, -1) {
			used[string(m[1])] = true
		}
	}
	for name := range used {
		if !there[name] {
			t.Errorf("there is no icon %q", name)
		}
	}
	for name := range there {
		if !used[name] {
			t.Errorf("the icon %q is not used", name)
		}
	}
}

// TestLicences: what others made comes with its licence.
func TestLicences(t *testing.T) {
	for name, want := range map[string]string{"inter.LICENSE.txt": "SIL Open Font License", "icons.LICENSE.txt": "MIT License"} {
		b, err := fs.ReadFile(assets.Static(), name)
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
