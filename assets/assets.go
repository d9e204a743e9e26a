// Package assets holds what WebConf is drawn with: HTML templates, and the stylesheet, font and icons that
// browsers fetch. All of it is embedded, so that the daemon is one file. What comes from other projects is
// copied here by vendor/vendor.mjs and committed with its licence.
//
// Reading order: templates/layout.html, templates/parts.html, then one template per page;
// static/console.css; vendor/vendor.mjs.
package assets

import (
	"embed"
	"io/fs"
)

//go:embed templates static
var files embed.FS

// Templates are the html/template files, by name.
func Templates() fs.FS { return sub("templates") }

// Static are the files that browsers fetch, by name.
func Static() fs.FS { return sub("static") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is a constant above
	}
	return f
}
