package webconf

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
	"github.com/labstack/echo/v4"
)

// Errors of this package's own.
var (
	errNoSession   = errors.New("nobody is logged in")
	errMustChange  = errors.New("the password of this account is temporary; change it first")
	errCrossOrigin = errors.New("this came from a page of another site")
	errTooFast     = errors.New("too many tries from your address")
)

// A spoken error is one whose text is for whoever asked, with its status and code.
type spoken struct {
	status int
	code   string
	err    error
}

func (s *spoken) Error() string { return s.err.Error() }
func (s *spoken) Unwrap() error { return s.err }

// invalid says what is wrong with a request.
func invalid(format string, args ...any) error {
	return &spoken{http.StatusBadRequest, "invalid", fmt.Errorf(format, args...)}
}

// said makes the text of an error public that no other rule does: for the person at the node's own
// console, who makes a cluster and needs to know why that fails.
func said(err error) error {
	if err == nil || judge(err).code != "internal" {
		return err
	}
	return &spoken{http.StatusConflict, "refused", err}
}

// A verdict is what the one who asked is told of an error.
type verdict struct {
	status  int
	code    string // of the API
	message string
	retry   time.Duration // when to try again; 0: not said
}

// clusterCodes are the answers to the kinds of cluster errors.
var clusterCodes = map[cluster.Code]verdict{
	cluster.Invalid:   {status: http.StatusBadRequest, code: "invalid"},
	cluster.Denied:    {status: http.StatusForbidden, code: "denied"},
	cluster.NotFound:  {status: http.StatusNotFound, code: "not_found"},
	cluster.Conflict:  {status: http.StatusConflict, code: "conflict"},
	cluster.Expired:   {status: http.StatusConflict, code: "expired"},
	cluster.NoLeader:  {status: http.StatusServiceUnavailable, code: "no_leader"},
	cluster.Uncertain: {status: http.StatusServiceUnavailable, code: "uncertain"},
	cluster.Behind:    {status: http.StatusServiceUnavailable, code: "behind"},
	cluster.Upgrade:   {status: http.StatusConflict, code: "upgrade"},
	cluster.Full:      {status: http.StatusConflict, code: "full"},

	cluster.NeedsApproval: {status: http.StatusConflict, code: "needs_approval"},
	cluster.Changed:       {status: http.StatusConflict, code: "changed"},
}

// judge decides what the one who asked is told. Only errors that are made for people keep their text.
func judge(err error) verdict {
	text := err.Error()
	if s, ok := errors.AsType[*spoken](err); ok {
		return verdict{s.status, s.code, text, 0}
	}
	if w, ok := errors.AsType[*node.WaitError](err); ok {
		return verdict{http.StatusTooManyRequests, "throttled", text, time.Until(w.Until)}
	}
	if v, ok := clusterVerdict(err); ok {
		return v
	}
	if _, ok := errors.AsType[syncpkg.Kind](err); ok {
		return verdict{http.StatusUnprocessableEntity, "package", text, 0}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return verdict{http.StatusRequestEntityTooLarge, "invalid", "what was sent is larger than this takes", 0}
	}
	if h, ok := errors.AsType[*echo.HTTPError](err); ok {
		return httpVerdict(h)
	}
	switch {
	case errors.Is(err, errNoSession):
		return verdict{http.StatusUnauthorized, "denied", text, 0}
	case errors.Is(err, errCrossOrigin):
		return verdict{http.StatusForbidden, "denied", "this came from a page of another site, so it was not done; open the console of this node and do it there", 0}
	case errors.Is(err, errTooFast):
		return verdict{http.StatusTooManyRequests, "throttled", text + "; wait a moment", tryEvery}
	case errors.Is(err, node.ErrLogin), errors.Is(err, node.ErrCode), errors.Is(err, node.ErrTooLate):
		return verdict{http.StatusUnauthorized, "denied", text, 0}
	case errors.Is(err, node.ErrNotMember):
		return verdict{http.StatusConflict, "not_member", text, 0}
	case errors.Is(err, node.ErrSealed):
		return verdict{http.StatusServiceUnavailable, "sealed", text, 0}
	case node.IsRefusal(err):
		return verdict{http.StatusConflict, "refused", text, 0}
	case errors.Is(err, hsm.Internal):
	case isHSM(err):
		return verdict{http.StatusServiceUnavailable, "unavailable", text, 0}
	case errors.Is(err, context.DeadlineExceeded):
		return verdict{http.StatusServiceUnavailable, "unavailable", "it took too long; try again, and see the node's log if it happens again", 0}
	}
	return verdict{http.StatusInternalServerError, "internal", "", 0}
}

// clusterVerdict answers errors of the replicated state, however deep they are.
func clusterVerdict(err error) (verdict, bool) {
	e, ok := errors.AsType[*cluster.Error](err)
	if !ok {
		return verdict{}, false
	}
	v, ok := clusterCodes[e.Code]
	v.message = err.Error()
	return v, ok
}

// isHSM tells whether a module or a token is what failed. Its words help whoever runs it.
func isHSM(err error) bool {
	_, ok := errors.AsType[*hsm.Error](err)
	return ok
}

// httpVerdict answers what Echo found wrong: no such page, no such method.
func httpVerdict(h *echo.HTTPError) verdict {
	v := verdict{status: h.Code, code: "invalid", message: http.StatusText(h.Code)}
	switch h.Code {
	case http.StatusNotFound:
		v.code, v.message = "not_found", "there is nothing at this address"
	case http.StatusMethodNotAllowed:
		v.message = "this address does not take that method"
	case http.StatusBadRequest:
		if text, ok := h.Message.(string); ok {
			v.message = text
		}
	}
	return v
}

// settle judges an error and logs what its judgement hides, under a reference that people can tell.
func (c *call) settle(err error) verdict {
	v := judge(err)
	c.retryAfter(v)
	if v.code != "internal" {
		return v
	}
	if c.Request().Context().Err() != nil { // nobody waits for the answer
		c.srv.log.Debug("the client went away", "error", err)
	} else {
		reference := rand.Text()[:8]
		v.message = "an internal error; the node's log has it under the reference " + reference
		c.srv.log.Error("internal error", "reference", reference, "method", c.Request().Method, "path", c.Request().URL.Path, "error", err)
	}
	return v
}

// retryAfter tells programs when to try again.
func (c *call) retryAfter(v verdict) {
	if v.retry > 0 {
		c.Response().Header().Set("Retry-After", strconv.Itoa(int(v.retry.Seconds())+1))
	}
}

// apiError answers an error as JSON.
func apiError(c *call, err error) {
	v := c.settle(err)
	if c.Response().Committed {
		return
	}
	type body struct {
		Code     string `json:"code"`
		Message  string `json:"message"`
		Approval string `json:"approval,omitempty"` // the request for it
	}
	if err := c.JSON(v.status, map[string]body{"error": {v.code, v.message, approvalOf(err)}}); err != nil {
		c.srv.log.Debug("an answer was not sent", "error", err)
	}
}

// errorPage answers an error as a page, or sends people who are not logged in to where they can be.
func errorPage(c *call, err error) {
	if c.Response().Committed {
		c.settle(err)
		return
	}
	switch {
	case errors.Is(err, errNoSession):
		err = c.toLogin()
	case errors.Is(err, errMustChange):
		err = c.redirect("/account")
	case approvalOf(err) != "":
		err = c.toApproval(err)
	case c.m != nil && c.m.StillMember() != nil && c.Request().Method == get && c.Request().URL.Path != "/removed":
		err = c.redirect("/removed")
	default:
		err = c.showError(c.settle(err))
	}
	if err == nil {
		return
	}
	c.srv.log.Error("an error page was not shown", "error", err)
	if !c.Response().Committed {
		_ = c.String(http.StatusInternalServerError, "An internal error; the node's log says more.\n")
	}
}

// approvalOf is the request for approval that an error tells of, if it does.
func approvalOf(err error) string {
	if e, ok := errors.AsType[*cluster.Error](err); ok && e.Code == cluster.NeedsApproval {
		return e.Approval
	}
	return ""
}

// toApproval leads whoever did something that needs approval to the request for it. That is no error:
// people whose work waits for others should not be told that something went wrong.
func (c *call) toApproval(err error) error {
	e, _ := errors.AsType[*cluster.Error](err)
	if err := c.flash(sentence(e.Message)); err != nil {
		return err
	}
	return c.redirect(approvalPath(e.Approval))
}

// showError shows the page of an error.
func (c *call) showError(v verdict) error {
	titles := map[int]string{
		http.StatusBadRequest: "That cannot be read", http.StatusForbidden: "Not allowed", http.StatusNotFound: "Not found",
		http.StatusConflict: "Not possible now", http.StatusRequestEntityTooLarge: "Too large",
		http.StatusUnprocessableEntity: "Not accepted", http.StatusTooManyRequests: "Too many tries",
		http.StatusServiceUnavailable: "Not available now", http.StatusInternalServerError: "Something went wrong here",
	}
	title := titles[v.status]
	if title == "" {
		title = http.StatusText(v.status)
	}
	return c.render(v.status, page{Name: "error", Title: title, Data: errorView{v.status, v.message}})
}

type errorView struct {
	Status  int
	Message string
}
