package webconf

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestStatesInABrowser looks at pages in states that a small cluster does not come into by itself: forms that
// were refused, codes that do not fit, custodians who are missing, certificates at the log-in. They are drawn
// from plain data; by turns in light and wide, and in dark and as narrow as a telephone.
func TestStatesInABrowser(t *testing.T) {
	c := newChromium(t)
	names, pages := statesToSee(t)
	files, err := newStatic()
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f, ok := files.files[path.Base(r.URL.Path)]; ok {
			w.Header().Set("Content-Type", f.kind)
			w.Write(f.plain)
			return
		}
		i, err := strconv.Atoi(path.Base(r.URL.Path))
		if err != nil || i >= len(pages) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		w.Write(pages[i])
	}))
	t.Cleanup(site.Close)
	for turn, look := range []struct {
		theme string
		width int64
	}{{"light", 1280}, {"dark", 390}} {
		c.theme(look.theme)
		c.do(chromedp.EmulateViewport(look.width, 900))
		for i, name := range names {
			if i%2 != turn {
				continue
			}
			where := fmt.Sprintf("state-%s-%s-%d", name, look.theme, look.width)
			c.do(chromedp.Navigate(fmt.Sprintf("%s/%d", site.URL, i)), chromedp.WaitReady(chromedp.CSS("main")), chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("main details").forEach(d => d.open = true)`))
			c.narrow(where)
			c.screenshot(where)
			c.accessible(where)
			c.quiet(where)
		}
	}
}

// statesToSee draws them: of each template and refused form the first, and each slot in its state.
func statesToSee(t *testing.T) (names []string, pages [][]byte) {
	t.Helper()
	files, err := newStatic()
	if err != nil {
		t.Fatal(err)
	}
	views, err := newViews(files)
	if err != nil {
		t.Fatal(err)
	}
	templates := []string{"account", "application", "cluster", "custodians", "keys-replace", "login", "newslot", "policies", "removed", "settings", "slot", "start", "stolen", "thefts"}
	for _, p := range everyPage() {
		if p.state != "degraded" || !slices.Contains(templates, p.Name) {
			continue
		}
		name := p.Name
		if p.Name == "slot" {
			name = strings.ReplaceAll(p.Title, " ", "")
		}
		if d, ok := p.Data.(startView); ok && d.Requested != "" {
			name += "-requested"
		}
		if d, ok := p.Data.(custodiansView); ok && d.Some {
			name += "-some"
		}
		if d, ok := p.Data.(keysView); ok && d.Requested != "" {
			name += "-requested"
		}
		if d, ok := p.Data.(keysView); ok && d.Next != nil {
			name += "-" + strconv.Itoa(len(d.Done))
		}
		if d, ok := p.Data.(settingsView); ok {
			name += d.state()
		}
		if p.Failed() {
			name += "-" + p.Form.Name
		}
		if slices.Contains(names, name) || p.Name == "slot" && p.Failed() && p.Form.Name != "mode" {
			continue
		}
		html, err := views.draw(p.page)
		if err != nil {
			t.Fatal(err)
		}
		names, pages = append(names, name), append(pages, html)
	}
	return names, pages
}

// narrow fails when the page is wider than the window, or a card cuts off what is in it.
func (c *chromium) narrow(where string) {
	c.t.Helper()
	if over := evaluate[int](c, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
		c.t.Errorf("%s: the page is %d pixels wider than the window", where, over)
	}
	cut := evaluate[string](c, `[...document.querySelectorAll("main .card *:not(.vh)")].filter(e => !e.closest(".table-wrap, pre, svg, .vh") &&
		e.getBoundingClientRect().right > e.closest(".card").getBoundingClientRect().right + 1).map(e => e.outerHTML.slice(0, 100)).slice(0, 3).join("; ")`)
	if cut != "" {
		c.t.Errorf("%s: cut off by a card: %s", where, cut)
	}
}
