package hsm

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// A conn is the parent's end of the pipe to a child.
type conn struct {
	rw      io.ReadWriteCloser
	writing sync.Mutex

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan *frame
	gone    chan struct{} // closed when the pipe has ended
}

func newConn(rw io.ReadWriteCloser) *conn {
	c := &conn{rw: rw, pending: map[uint64]chan *frame{}, gone: make(chan struct{})}
	go c.read()
	return c
}

func (c *conn) read() {
	for {
		f, err := readFrame(c.rw)
		if err != nil {
			break
		}
		c.mu.Lock()
		answer := c.pending[f.Call]
		delete(c.pending, f.Call)
		c.mu.Unlock()
		if answer != nil { // nil: the caller did not wait for it
			answer <- f
		}
	}
	c.rw.Close()
	close(c.gone)
}

var errDeadline = errors.New("deadline passed")

// roundTrip sends one call and waits for its answer. It returns errDeadline when the child took
// longer than limit; the caller then ends the child.
func (c *conn) roundTrip(ctx context.Context, op string, args any, limit time.Duration) (*frame, error) {
	answer := make(chan *frame, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = answer
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}
	if err := writeFrame(c.rw, &c.writing, head{Call: id, Op: op}, args); err != nil {
		forget()
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, e
		}
		return nil, &Error{Code: Down, Object: op}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case f := <-answer:
		if f.Err != nil {
			return nil, f.Err
		}
		return f, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	case <-timer.C:
		forget()
		return nil, errDeadline
	case <-c.gone:
		select { // the answer may have come with the last breath
		case f := <-answer:
			if f.Err != nil {
				return nil, f.Err
			}
			return f, nil
		default:
		}
		return nil, &Error{Code: Down, Object: op, Detail: "its process ended during the call; what was asked for may or may not have been done"}
	}
}
