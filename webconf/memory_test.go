package webconf

import (
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newPipe is a multipart form with a file of a size that nothing holds in memory.
func newPipe(t *testing.T, size int64) (io.Reader, string) {
	t.Helper()
	const boundary = "limit"
	head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"package\"; filename=\"x.keyferry\"\r\n\r\nkeyferry-sync-package/1\n{\n"
	return io.MultiReader(strings.NewReader(head), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--"+boundary+"--\r\n")), "multipart/form-data; boundary=" + boundary
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// watchMemory returns the heap in use now, and a function that ends the watch and returns the highest
// since.
func watchMemory(t *testing.T) (before uint64, high func() uint64) {
	t.Helper()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before = heap()
	var most atomic.Uint64
	most.Store(before)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most.Store(max(most.Load(), heap()))
			case <-stop:
				return
			}
		}
	}()
	return before, func() uint64 {
		close(stop)
		<-stopped
		return most.Load()
	}
}
