package webconf

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"

	"github.com/keyferry/keyferry/node"
	"github.com/labstack/echo/v4"
)

// uploadPackage takes in a package file from a form. The file goes from the network to disk and is
// checked on the way; nothing of it is held here.
func uploadPackage(c *call) error {
	c.patience(uploadTime)
	staged, err := c.upload()
	if err == nil {
		if err := c.flash("The package is here. Its signature and its content are as " + staged.Header.Source + " made them."); err != nil {
			return err
		}
		return c.redirect(packagePath(staged.SHA256))
	}
	c.drain()
	f := &form{Name: "upload", status: http.StatusUnprocessableEntity}
	if err := f.blame("package", err); err != nil {
		return err
	}
	return showSync(c, "", f)
}

// drain reads what is left of an upload that was refused, as far as the limit lets it: clients look at
// the answer only once they have sent everything.
func (c *call) drain() { _, _ = io.Copy(io.Discard, c.Request().Body) }

func (c *call) upload() (node.Staged, error) {
	file, err := filePart(c.Request())
	if err != nil {
		return node.Staged{}, err
	}
	defer file.Close()
	return c.m.Sync.Stage(c.Request().Context(), c.actor, file)
}

// filePart finds the file in a multipart form.
func filePart(r *http.Request) (*multipart.Part, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, echo.NewHTTPError(http.StatusBadRequest, "the form has no file in it")
	}
	for {
		part, err := parts.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil, invalid("Choose the package file to upload.")
		case err != nil:
			return nil, echo.NewHTTPError(http.StatusBadRequest, "the form cannot be read")
		case part.FormName() == "package" && part.FileName() == "":
			return nil, invalid("Choose the package file to upload.")
		case part.FormName() == "package":
			return part, nil
		}
		part.Close()
	}
}
