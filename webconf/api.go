package webconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// kind checks the type of a request's body.
func (c *call) kind(want string) error {
	got, _, err := mime.ParseMediaType(c.Request().Header.Get("Content-Type"))
	if err != nil || got != want {
		return &spoken{http.StatusUnsupportedMediaType, "invalid", fmt.Errorf("the body's Content-Type must be %s", want)}
	}
	return nil
}

// decode reads a request's body as one JSON value without unknown fields. Without a body, v stays as it
// is. What was sent is in no error: it may contain codes.
func (c *call) decode(v any) error {
	d := json.NewDecoder(c.Request().Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err = c.kind("application/json"); err != nil {
			return err
		}
		_, err = d.Token()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return err
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid("the field %q of the JSON body is not of the type %s", kind.Field, kind.Type)
	}
	return invalid("the JSON body cannot be read, or has a field that this does not take")
}

// whole makes a nil list an empty one, which is what programs expect.
func whole[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func apiJobs(c *call) error {
	list, err := c.m.Jobs.List()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, whole(list))
}

// apiJob answers once the job has ended or the wait is over, whichever is sooner.
func apiJob(c *call) error {
	seconds, err := optionalNumber(c.QueryParam("wait"))
	if err != nil {
		return err
	}
	wait := min(time.Duration(min(seconds, 3600))*time.Second, maxWait)
	c.patience(wait + 10*time.Second)
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	j, err := c.job(id, wait)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, j)
}
