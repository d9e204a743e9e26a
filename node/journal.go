package node

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"go.etcd.io/bbolt"
)

// The journal says, before a token is touched, which keys an import is about to put there, and after,
// which of them have proved themselves. A node that stops in between finds in it what to sweep and what
// to go on with.

// A journalHead describes an import in progress.
type journalHead struct {
	Package string // id
	File    string // SHA-256 of the package file, which the node keeps
	Slot    string
	Serial  string // of the token
	Actor   cluster.Actor
	Began   time.Time
}

// A journalKey is one key of an import.
type journalKey struct {
	ID          string // CKA_ID, hexadecimal
	Fingerprint string
	Done        bool // it is on the token and has proved itself
}

var (
	journalHeadKey = []byte("head")
	journalKeys    = []byte("keys")
)

// journal is the journal of one import.
type journal struct {
	store *store
	id    []byte
}

// begin opens the journal of an import, or the one that an interrupted import has left.
func (s *store) journal(h journalHead) (*journal, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	j := &journal{s, []byte(h.Package)}
	return j, s.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.Bucket(bucketJournal).CreateBucketIfNotExists(j.id)
		if err != nil {
			return err
		}
		if bucket.Get(journalHeadKey) != nil {
			return nil
		}
		if _, err := bucket.CreateBucketIfNotExists(journalKeys); err != nil {
			return err
		}
		return bucket.Put(journalHeadKey, b)
	})
}

// write stores keys by their index in the package, in one durable step.
func (j *journal) write(keys map[int]journalKey) error {
	return j.store.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketJournal).Bucket(j.id).Bucket(journalKeys)
		for i, k := range keys {
			b, err := json.Marshal(k)
			if err != nil {
				return err
			}
			if err := bucket.Put(binary.BigEndian.AppendUint32(nil, uint32(i)), b); err != nil {
				return err
			}
		}
		return nil
	})
}

// close ends an import: nothing of it is open any more.
func (j *journal) close() error {
	return j.store.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketJournal).DeleteBucket(j.id) })
}

// readJournal reads the journal of one import; errAbsent when there is none.
func (s *store) readJournal(id string) (h journalHead, keys []journalKey, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketJournal).Bucket([]byte(id))
		if bucket == nil {
			return errAbsent
		}
		if err := json.Unmarshal(bucket.Get(journalHeadKey), &h); err != nil {
			return err
		}
		return bucket.Bucket(journalKeys).ForEach(func(_, b []byte) error {
			var k journalKey
			err := json.Unmarshal(b, &k)
			keys = append(keys, k)
			return err
		})
	})
	return h, keys, err
}

// journals lists the imports that are open.
func (s *store) journals() (ids []string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketJournal).ForEachBucket(func(k []byte) error {
			ids = append(ids, string(k))
			return nil
		})
	})
	slices.Sort(ids)
	return ids, err
}

// isOpen tells whether an import of a package is in progress, or was interrupted.
func (y *Sync) isOpen(id string) bool {
	_, _, err := y.m.node.store.readJournal(id)
	return !errors.Is(err, errAbsent)
}

// unproved are the CKA_IDs of keys that were about to be made and have not proved themselves.
func unproved(keys []journalKey) [][]byte {
	var ids [][]byte
	for _, k := range keys {
		if id, err := hex.DecodeString(k.ID); err == nil && !k.Done {
			ids = append(ids, id)
		}
	}
	return ids
}
