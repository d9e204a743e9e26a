package webconf

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/keyferry/keyferry/assets"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/labstack/echo/v4"
)

// views are the templates, one set per page: each is the layout and the parts with one page's content.
type views struct {
	sets map[string]*template.Template
}

func newViews(files *static) (*views, error) {
	base := template.New("").Funcs(functions(files)).Option("missingkey=error")
	templates := assets.Templates()
	base, err := base.ParseFS(templates, "layout.html", "parts.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(templates, "*.html")
	if err != nil {
		return nil, err
	}
	v := &views{sets: map[string]*template.Template{}}
	for _, file := range names {
		name := strings.TrimSuffix(file, ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		set, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if v.sets[name], err = set.ParseFS(templates, file); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// functions are what templates can call.
func functions(files *static) template.FuncMap {
	now := time.Now
	return template.FuncMap{
		"static": files.url,
		"icon": func(name string) template.HTML {
			return template.HTML(`<svg class="i" aria-hidden="true" focusable="false"><use href="` + files.url("icons.svg") + `#` + template.HTMLEscapeString(name) + `"/></svg>`)
		},
		"ago":      func(t time.Time) template.HTML { return timeTag(t, now()) },
		"date":     dateTag,
		"clock":    clockTag,
		"size":     size,
		"plural":   plural,
		"are":      are,
		"list":     and,
		"duration": milliseconds,
		"sentence": sentence,
		"capital":  capital,
		"stopped":  stopped,
		"grouped":  grouped,
		"short":    short,
		"input":    newInput,
		"keyName":  keyName,
		"toneIcon": toneIcon,

		"minCode":       func() int { return node.MinCode },
		"minPassphrase": func() int { return node.MinPassphrase },
		"minPassword":   func() int { return node.MinPassword },

		"openingMark": openingMark, "jobNoun": jobNoun, "purposeWord": purposeWord, "shareWord": shareWord,
		"seatMark": seatMark, "presenceMark": presenceMark, "resultMark": resultMark, "jobMark": jobMark, "keyMark": keyMark,
		"previewMark": previewMark, "tokenMark": tokenMark, "restartMark": restartMark, "runMark": runMark, "deliveryWord": deliveryWord, "opensMark": opensMark, "stopsMark": stopsMark, "abilityMark": abilityMark, "memberMark": memberMark, "certificateMark": certificateMark, "chainPath": chainPath, "identityKeyPath": identityKeyPath,
		"modeWord": modeWord, "protectorWord": protectorWord, "jobWord": jobWord, "actWord": actWord, "actorWord": actorWord, "byWord": byWord, "restartWord": restartWord,
		"alertMark": alertMark, "auditPath": auditPath, "objectName": objectName, "objectNoun": objectNoun,

		"roleWord": roleWord, "policyWord": policyWord, "approvalMark": approvalMark, "approvalPath": approvalPath, "requests": newRequestList, "personPath": personPath, "slotPath": slotPath, "packagePath": packagePath, "jobPath": jobPath, "applicationPath": applicationPath, "keyPath": keyPath,
		"receiptPath": receiptPath,
	}
}

// A page is what one template draws.
type page struct {
	Name    string // of the template
	Title   string
	Nav     string // which entry of the navigation it belongs to: its path
	Crumbs  []crumb
	Script  string // file of the one script that the page may run; empty for none, as on nearly all pages
	Refresh int    // seconds after which the browser loads it again; 0: never
	Form    *form
	Data    any

	frame
}

// A crumb is one step of the way to a page.
type crumb struct{ Text, Path string }

// A frame is what stands around every page.
type frame struct {
	Node    string
	Cluster string
	Account string // empty when nobody is logged in
	Theme   string // "light", "dark" or "" for what the system has
	Back    string // the path of this page
	Nodes   []nodeLink
	Menu    []menuEntry
	Banner  *problem
	More    int // further problems
	Notes   []string

	may func(cluster.Permission, string) bool // nil: nothing
}

// May tells whether whoever looks at the page has a permission, for a slot where it is about one. What
// they may not do is not offered.
func (f frame) May(permission string, slot ...string) (bool, error) {
	p, label := cluster.Permission(permission), cluster.AnySlot
	if err := cluster.CheckPermission(p); err != nil { // a slip in a template
		return false, err
	}
	if len(slot) > 0 {
		label = slot[0]
	}
	return f.may != nil && f.may(p, label), nil
}

// A nodeLink leads to a node's own console.
type nodeLink struct {
	Name string
	URL  string
	Mark mark
	Here bool
}

// A menuEntry is one line of the navigation.
type menuEntry struct {
	Path, Text, Icon string
	Sub              bool   // below the entry before it
	Count            int    // of what waits there
	Noun             string // what it is
}

func menu(gaps, waiting int) []menuEntry {
	return []menuEntry{
		{"/", "Status", "status", false, 0, ""},
		{"/hsm", "HSM overview", "hsm", false, 0, ""},
		{"/slots", "PKCS#11 slots", "slots", true, 0, ""},
		{"/activate", "Activation", "check", true, 0, ""},
		{"/coverage", "Key coverage", "coverage", true, gaps, "gap"},
		{"/custody", "Who holds codes", "key", true, 0, ""},
		{"/restart", "Restart forecast", "restart", true, 0, ""},
		{"/sync", "Key synchronization", "sync", true, 0, ""},
		{"/applications", "Applications", "apps", false, 0, ""},
		{"/approvals", "Approvals", "approvals", false, waiting, "request"},
		{"/people", "People", "people", false, 0, ""},
		{"/cluster", "Cluster", "cluster", false, 0, ""},
		{"/identity", "Identity and trust", "identity", true, 0, ""},
		{"/jobs", "Jobs", "jobs", false, 0, ""},
		{"/audit", "Audit log", "audit", false, 0, ""},
		{"/account", "Your account", "account", false, 0, ""},
	}
}

// Failed tells whether a form is shown again because something was wrong with it.
func (p page) Failed() bool { return p.Form != nil && !p.Form.ok() }

// draw writes a page as HTML.
func (v *views) draw(p page) ([]byte, error) {
	set, ok := v.sets[p.Name]
	if !ok {
		return nil, fmt.Errorf("there is no template %q", p.Name)
	}
	var b bytes.Buffer
	err := set.ExecuteTemplate(&b, "layout", p)
	return b.Bytes(), err
}

// show answers with a page.
func (c *call) show(p page) error {
	status := http.StatusOK
	if p.Failed() {
		status = p.Form.status
	}
	return c.render(status, p)
}

// render answers with a page, whole or not at all.
func (c *call) render(status int, p page) error {
	p.frame = c.frame(p)
	b, err := c.srv.views.draw(p)
	if err != nil {
		return err
	}
	if p.Script != "" {
		c.Response().Header().Set("Content-Security-Policy", scriptPolicy)
	}
	return c.HTMLBlob(status, b)
}

// frame gathers what stands around a page. Who is not logged in sees nothing of the cluster but its name.
func (c *call) frame(p page) frame {
	f := frame{Node: c.srv.node.Name(), Theme: c.theme(), Back: c.Request().URL.RequestURI()}
	if c.Request().Method != http.MethodGet {
		f.Back = "/"
	}
	if c.m == nil {
		return f
	}
	f.Cluster = c.m.State().Cluster.Name
	if c.actor.Kind == "" {
		return f
	}
	f.Account, f.Notes, f.may = c.actor.Name, c.flashes(), c.may
	if c.m.StillMember() != nil {
		f.Menu = []menuEntry{{"/removed", "This node", "status", false, 0, ""}}
		return f
	}
	if !f.may(cluster.MayView, cluster.AnySlot) { // a temporary password, or no role: nothing of the cluster is theirs to see
		f.Menu = []menuEntry{{"/account", "Your account", "account", false, 0, ""}}
		return f
	}
	f.surround(c.look(), p, c.Request().URL.EscapedPath())
	return f
}

// surround fills in what somebody who is logged in sees around the page at a path.
func (f *frame) surround(v *situation, p page, here string) {
	f.Menu = menu(v.Summary.Gaps, node.WaitFor(v.State, cluster.Actor{Kind: cluster.ByAccount, Name: f.Account}, v.Now))
	there := p.Nav // jobs and packages differ from node to node; slots and keys do not
	if strings.HasPrefix(here, "/slots/") || strings.HasPrefix(here, "/coverage/") {
		there = here
	}
	for _, name := range v.names() {
		f.Nodes = append(f.Nodes, nodeLink{name, v.State.Nodes[name].WebURL + there, v.healthMark(name), name == v.Node})
	}
	if p.Name != "status" { // which lists all of them
		f.Banner, f.More = banner(v.problems(), here)
	}
}

// banner picks the most urgent problem that this page does not treat itself.
func banner(list []problem, here string) (first *problem, more int) {
	for _, p := range list {
		path, _, _ := strings.Cut(p.Path, "?")
		path, _, _ = strings.Cut(path, "#")
		switch {
		case path == here:
		case first == nil:
			first = &p
		default:
			more++
		}
	}
	return first, more
}

const themeCookie = "__Host-keyferry-theme"

// theme is what this browser has chosen.
func (c *call) theme() string {
	cookie, err := c.Cookie(themeCookie)
	if err != nil || cookie.Value != "light" && cookie.Value != "dark" {
		return ""
	}
	return cookie.Value
}

// setTheme keeps the choice in the browser: it is about that screen, and about no account.
func setTheme(c *call) error {
	f, err := c.readForm("theme")
	if err != nil {
		return err
	}
	cookie := &http.Cookie{Name: themeCookie, Value: f.text("theme"), Path: "/", MaxAge: 365 * 24 * 3600, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	switch cookie.Value {
	case "light", "dark":
	case "system":
		cookie.MaxAge = -1
	default:
		return echo.NewHTTPError(http.StatusBadRequest, "the theme is light, dark or system")
	}
	c.SetCookie(cookie)
	return c.redirect(localPath(f.Values.Get("back")))
}
