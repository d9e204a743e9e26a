package webconf

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// An htmlReader checks one document.
type htmlReader struct {
	open       []string
	ids        map[string]bool
	references []string // to ids
	headings   []int
	complaints []string
	labels     map[string]bool // ids that have a label
	fields     []string        // ids of inputs without a label around them
	title      string
}

var void = map[string]bool{"meta": true, "link": true, "input": true, "br": true, "hr": true, "img": true}

// inspect reads HTML and returns what is wrong with it.
func inspect(html string) []string {
	r := &htmlReader{ids: map[string]bool{}, labels: map[string]bool{}}
	for _, never := range []string{"<script", "ZgotmplZ", "<no value>", "javascript:", "%!"} {
		if strings.Contains(html, never) {
			r.complain("it contains %s", never)
		}
	}
	d := xml.NewDecoder(strings.NewReader(html))
	d.Strict, d.Entity = false, xml.HTMLEntity
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.complain("it is not well-formed: %v", err)
			return r.complaints
		}
		switch token := token.(type) {
		case xml.StartElement:
			r.start(token)
		case xml.EndElement:
			r.end(token.Name.Local)
		case xml.CharData:
			if len(r.open) > 0 && r.open[len(r.open)-1] == "title" {
				r.title += string(token)
			}
		}
	}
	r.finish()
	return r.complaints
}

func (r *htmlReader) complain(format string, args ...any) {
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

func (r *htmlReader) start(e xml.StartElement) {
	name := e.Name.Local
	a := map[string]string{}
	for _, attr := range e.Attr {
		key := attr.Name.Local
		if attr.Name.Space != "" {
			key = attr.Name.Space + ":" + key
		}
		if _, twice := a[key]; twice {
			r.complain("<%s> has the attribute %s twice", name, key)
		}
		a[key] = attr.Value
		if key == "style" || strings.HasPrefix(key, "on") {
			r.complain("<%s> has the attribute %s", name, key)
		}
	}
	if id, ok := a["id"]; ok {
		if r.ids[id] {
			r.complain("the id %q is there twice", id)
		}
		r.ids[id] = true
	}
	for _, key := range []string{"aria-labelledby", "aria-describedby", "for"} {
		r.references = append(r.references, strings.Fields(a[key])...)
	}
	r.meaning(name, a)
	if !void[name] {
		r.open = append(r.open, name)
	}
}

// meaning checks what certain elements need.
func (r *htmlReader) meaning(name string, a map[string]string) {
	switch name {
	case "script", "style":
		r.complain("there is a <%s>", name)
	case "h1", "h2", "h3", "h4":
		r.headings = append(r.headings, int(name[1]-'0'))
	case "label":
		r.labels[a["for"]] = true
	case "input", "select":
		if a["type"] != "hidden" && !slices.Contains(r.open, "label") {
			r.fields = append(r.fields, a["id"])
		}
		if a["type"] == "password" && a["value"] != "" {
			r.complain("a password field is filled in")
		}
	case "a":
		if a["href"] == "" {
			r.complain("a link leads nowhere")
		}
	case "form":
		if a["action"] == "" || a["method"] == "" {
			r.complain("a form does not say where it goes")
		}
	case "th":
		if a["scope"] == "" {
			r.complain("a <th> has no scope")
		}
	}
}

func (r *htmlReader) end(name string) {
	if void[name] {
		return
	}
	if len(r.open) == 0 || r.open[len(r.open)-1] != name {
		r.complain("</%s> ends %v", name, r.open)
		return
	}
	r.open = r.open[:len(r.open)-1]
}

func (r *htmlReader) finish() {
	if len(r.open) > 0 {
		r.complain("not ended: %v", r.open)
	}
	for _, id := range r.references {
		if !r.ids[id] {
			r.complain("there is no id %q that something refers to", id)
		}
	}
	for _, id := range r.fields {
		if !r.labels[id] || id == "" {
			r.complain("the field %q has no label", id)
		}
	}
	if strings.TrimSpace(strings.Split(r.title, "–")[0]) == "" {
		r.complain("the title is empty")
	}
	ones, last := 0, 0
	for _, h := range r.headings {
		if h == 1 {
			ones++
		}
		if h > last+1 && last > 0 {
			r.complain("a heading of level %d follows one of level %d", h, last)
		}
		last = h
	}
	if ones != 1 {
		r.complain("there are %d headings of the first level", ones)
	}
}

// TestInspect makes sure that the reader above finds what it looks for.
func TestInspect(t *testing.T) {
	const good = `<!doctype html><html lang="en"><head><title>A – b</title></head><body><h1>A</h1><p id="x">text &amp; text</p></body></html>`
	if c := inspect(good); len(c) > 0 {
		t.Errorf("a good page: %v", c)
	}
	for _, broken := range []string{
		strings.Replace(good, "</p>", "</b>", 1), strings.Replace(good, "text", "<script>alert(1)</script>", 1), strings.Replace(good, "text", `<b style="x">y</b>`, 1),
		strings.Replace(good, "text", `<b onclick="x">y</b>`, 1), strings.Replace(good, "text", `<b id="x">y</b>`, 1), strings.Replace(good, "text", `<input id="y" type="text">`, 1),
		strings.Replace(good, "text", `<h1>y</h1>`, 1), strings.Replace(good, "text", `<h3>y</h3>`, 1), strings.Replace(good, "A –", `–`, 1), strings.Replace(good, "text", `<label for="z">y</label>`, 1),
		strings.Replace(good, "text", `<a href="">y</a>`, 1), strings.Replace(good, "text", `<form>y</form>`, 1), strings.Replace(good, "</body>", "", 1),
	} {
		if len(inspect(broken)) == 0 {
			t.Errorf("nothing is found wrong with %s", broken)
		}
	}
}
