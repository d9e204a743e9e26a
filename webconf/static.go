package webconf

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/assets"
	"github.com/labstack/echo/v4"
)

// static is what browsers fetch beside pages, held in memory and compressed once. The address contains
// a hash of all of it, so browsers may keep it for ever.
type static struct {
	hash  string
	files map[string]staticContent
}

type staticContent struct {
	kind   string
	plain  []byte
	zipped []byte // nil where that saves nothing
}

func newStatic() (*static, error) {
	s := &static{files: map[string]staticContent{}}
	sum := sha256.New()
	files := assets.Static()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum.Write([]byte(name + "\x00" + strconv.Itoa(len(b)) + "\x00"))
		sum.Write(b)
		s.files[name] = newContent(name, b)
		return nil
	})
	s.hash = hex.EncodeToString(sum.Sum(nil))[:12]
	return s, err
}

func newContent(name string, b []byte) staticContent {
	c := staticContent{kind: kinds[path.Ext(name)], plain: b}
	if path.Ext(name) == ".woff2" { // compressed in itself
		return c
	}
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression) // the level is right
	w.Write(b)
	w.Close()
	if z.Len() < len(b) {
		c.zipped = z.Bytes()
	}
	return c
}

// kinds are the types of our files, whatever the machine's own table says.
var kinds = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
}

// url is the address of a file.
func (s *static) url(name string) string { return "/static/" + s.hash + "/" + name }

// staticFile serves a file. An address of an older program answers with what there is now, and is not
// kept.
func staticFile(c *call) error {
	s := c.srv.static
	f, ok := s.files[c.Param("file")]
	if !ok {
		return echo.ErrNotFound
	}
	h := c.Response().Header()
	h.Set("Vary", "Accept-Encoding")
	if c.Param("hash") == s.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.plain
	if f.zipped != nil && strings.Contains(c.Request().Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	return c.Blob(http.StatusOK, f.kind, body)
}
