package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// A store is what a node keeps for itself and never replicates: its identity, the sealed codes of its
// tokens, the journal of imports, its jobs.
type store struct{ db *bbolt.DB }

// The buckets of a store.
var (
	bucketIdentity     = []byte("identity")      // one record
	bucketSeats        = []byte("seats")         // slot label -> seatRecord
	bucketJournal      = []byte("journal")       // package id -> bucket of one import
	bucketStaged       = []byte("staged")        // SHA-256 of a package file -> Staged
	bucketReceipts     = []byte("receipts")      // package id -> keptReceipt
	bucketOutbox       = []byte("outbox")        // acts done without a quorum, to be replicated later
	bucketJobs         = []byte("jobs")          // job id -> Job, once it has ended
	bucketModules      = []byte("modules")       // module name -> self-test
	bucketSyslog       = []byte("syslog")        // seq -> audit entry that the syslog sink has not confirmed
	bucketTrail        = []byte("trail")         // this node's last signature under the audit trail
	bucketApps         = []byte("apps")          // application -> appRecord
	bucketSyslogCursor = []byte("syslog-cursor") // how far the trail was looked through for it
	bucketStart        = []byte("start")         // the one-time code of the first start
)

// single is the key of a bucket with one record.
const single = "single"

var errAbsent = errors.New("not found")

func openStore(dir string) (*store, error) {
	path := filepath.Join(dir, "node.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use: is another keyferry running on this data directory?", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketIdentity, bucketSeats, bucketJournal, bucketStaged, bucketReceipts, bucketOutbox, bucketJobs, bucketModules, bucketApps, bucketTrail, bucketSyslog, bucketSyslogCursor, bucketStart} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	return &store{db}, nil
}

func (s *store) close() error { return s.db.Close() }

// put writes one record, durably.
func (s *store) put(bucket []byte, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(key), b) })
}

// get reads one record; errAbsent when there is none.
func get[T any](s *store, bucket []byte, key string) (T, error) {
	var v T
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket).Get([]byte(key))
		if b == nil {
			return errAbsent
		}
		return json.Unmarshal(b, &v)
	})
	return v, err
}

// all reads every record of a bucket, in the order of their keys.
func all[T any](s *store, bucket []byte) ([]T, error) {
	var list []T
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, b []byte) error {
			if b == nil { // a bucket
				return nil
			}
			var v T
			if err := json.Unmarshal(b, &v); err != nil {
				return fmt.Errorf("record %q: %w", k, err)
			}
			list = append(list, v)
			return nil
		})
	})
	return list, err
}

func (s *store) drop(bucket []byte, key string) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(key)) })
}
