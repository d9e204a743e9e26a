package node

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"go.etcd.io/bbolt"
)

// syslogQueue is what waits on disk for the syslog sink: copies of audit entries, by their numbers. The
// cursor, up to which the trail was looked through, is written with them, so that after a crash none is
// missing and none comes twice.
type syslogQueue struct {
	store *store
	most  int // entries; when they are there, the cursor waits, and the trail itself is the queue

	mu     sync.Mutex
	length int
	cursor uint64
	saved  uint64 // the cursor on disk
	added  chan struct{}
}

const (
	// maxQueued bounds the disk that a sink takes which is away for long: half a gigabyte, or years for most.
	maxQueued = 500_000

	// copyBatch is how many entries one transaction copies; saveEvery how far the cursor runs ahead of the
	// one on disk while there is nothing to copy, to spare flushes.
	copyBatch = 5000
	saveEvery = 1000
)

// syslogCursor is the record of the cursor.
type syslogCursor struct{ Seq uint64 }

func openSyslogQueue(s *store) (*syslogQueue, error) {
	q := &syslogQueue{store: s, most: maxQueued, added: make(chan struct{}, 1)}
	c, err := get[syslogCursor](s, bucketSyslogCursor, single)
	if err != nil && !errors.Is(err, errAbsent) {
		return nil, err
	}
	q.cursor, q.saved = c.Seq, c.Seq
	err = s.db.View(func(tx *bbolt.Tx) error {
		q.length = tx.Bucket(bucketSyslog).Stats().KeyN
		return nil
	})
	return q, err
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// copy takes over what is new in the trail and happened on node. It returns the numbers of entries that
// were forgotten before they could be copied; from is 0 when there are none.
func (q *syslogQueue) copy(s *cluster.State, node string) (from, to uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(s.Audit) == 0 {
		return 0, 0, nil
	}
	oldest := s.Audit[0].Seq
	if q.cursor > 0 && oldest > q.cursor+1 {
		from, to = q.cursor+1, oldest-1
		if err := q.save(to, nil); err != nil { // the gap is told once, also where the queue is full
			return 0, 0, err
		}
	}
	next := max(q.cursor+1, oldest)
	for next <= lastEntry(s).Seq && q.length < q.most {
		rest := s.Audit[next-oldest:]
		rest = rest[:min(len(rest), copyBatch, q.most-q.length)]
		if err := q.copyBatch(rest, node); err != nil {
			return 0, 0, err
		}
		next = q.cursor + 1
	}
	return from, to, nil
}

func (q *syslogQueue) copyBatch(entries []cluster.Entry, node string) error {
	last := entries[len(entries)-1].Seq
	var own []cluster.Entry
	for _, e := range entries {
		if e.Node == node {
			own = append(own, e)
		}
	}
	if len(own) == 0 && last < q.saved+saveEvery {
		q.cursor = last
		return nil
	}
	if err := q.save(last, own); err != nil {
		return err
	}
	select {
	case q.added <- struct{}{}:
	default:
	}
	return nil
}

// save writes entries and the cursor in one durable step.
func (q *syslogQueue) save(cursor uint64, entries []cluster.Entry) error {
	err := q.store.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range entries {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketSyslog).Put(seqKey(e.Seq), b); err != nil {
				return err
			}
		}
		b, err := json.Marshal(syslogCursor{cursor})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketSyslogCursor).Put([]byte(single), b)
	})
	if err != nil {
		return err
	}
	q.cursor, q.saved = cursor, cursor
	q.length += len(entries)
	return nil
}

// after returns up to n entries with numbers above seq, in order.
func (q *syslogQueue) after(seq uint64, n int) (entries []cluster.Entry, err error) {
	err = q.store.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSyslog).Cursor()
		for k, b := c.Seek(seqKey(seq + 1)); k != nil && len(entries) < n; k, b = c.Next() {
			var e cluster.Entry
			if err := json.Unmarshal(b, &e); err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, err
}

// drop forgets entries up to seq, which the sink has.
func (q *syslogQueue) drop(seq uint64) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err = q.store.db.Update(func(tx *bbolt.Tx) error {
		dropped = 0
		c := tx.Bucket(bucketSyslog).Cursor()
		for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= seq; k, _ = c.First() {
			if err := c.Delete(); err != nil {
				return err
			}
			dropped++
		}
		return nil
	})
	if err == nil {
		q.length -= dropped
	}
	return dropped, err
}

// waiting tells how many entries wait, and since when the oldest does.
func (q *syslogQueue) waiting() (n int, since time.Time) {
	q.mu.Lock()
	n = q.length
	q.mu.Unlock()
	if oldest, err := q.after(0, 1); err == nil && len(oldest) > 0 {
		since = oldest[0].Time
	}
	return n, since
}
