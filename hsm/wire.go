package hsm

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"sync"
)

// Parent and child exchange frames: four bytes of length, then a gob stream of a head and a body. The
// child answers in any order. Frames are wiped after use, because some carry codes.

// A head goes before each body.
type head struct {
	Call uint64 // chosen by the parent, repeated by the child
	Op   string
	Err  *Error // in answers: the body is missing
}

func writeFrame(w io.Writer, mu *sync.Mutex, h head, body any) error {
	var buf bytes.Buffer
	buf.Write(make([]byte, 4))
	enc := gob.NewEncoder(&buf)
	if err := enc.Encode(h); err != nil {
		return err
	}
	if h.Err == nil && body != nil {
		if err := enc.Encode(body); err != nil {
			return fmt.Errorf("%s: %w", h.Op, err)
		}
	}
	b := buf.Bytes()
	defer clear(b)
	if len(b)-4 > MaxFrame {
		return &Error{Code: BadInput, Object: h.Op, Detail: fmt.Sprintf("message of %d bytes is over the limit of %d", len(b)-4, MaxFrame)}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	mu.Lock()
	defer mu.Unlock()
	_, err := w.Write(b)
	return err
}

// A frame is one message as it was read; body decodes what stands behind the head.
type frame struct {
	head
	raw []byte
	dec *gob.Decoder
}

func (f *frame) body(v any) error {
	if err := f.dec.Decode(v); err != nil {
		return &Error{Code: Internal, Object: f.Op, Detail: "message between daemon and HSM worker: " + err.Error()}
	}
	return nil
}

func (f *frame) wipe() { clear(f.raw) }

func readFrame(r io.Reader) (*frame, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > MaxFrame {
		return nil, fmt.Errorf("message of %d bytes is over the limit of %d", size, MaxFrame)
	}
	f := &frame{raw: make([]byte, size)}
	if _, err := io.ReadFull(r, f.raw); err != nil {
		return nil, err
	}
	f.dec = gob.NewDecoder(bytes.NewReader(f.raw))
	if err := f.dec.Decode(&f.head); err != nil {
		return nil, fmt.Errorf("message head: %w", err)
	}
	return f, nil
}

// Serve answers the parent's calls on conn with handle until the connection ends. It is the child's
// main loop; each call runs in a goroutine of its own. Serve returns once those have ended.
func Serve(conn io.ReadWriter, handle func(op string, decode func(any) error) (any, error)) error {
	var mu sync.Mutex
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		f, err := readFrame(conn)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		calls.Go(func() {
			defer f.wipe()
			reply, err := handle(f.Op, f.body)
			answer := head{Call: f.Call, Op: f.Op}
			if err != nil {
				answer.Err = asError(err)
			}
			if err := writeFrame(conn, &mu, answer, reply); err != nil {
				answer.Err = asError(err)
				writeFrame(conn, &mu, answer, nil) // the parent is gone if this fails too
			}
		})
	}
}

func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Code: CodeOf(err), Detail: err.Error()}
}
