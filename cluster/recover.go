package cluster

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft"
)

// After a restart, Raft applies a log entry only when a leader says that it is committed, so a node that
// comes up alone would know no more than its last snapshot: no accounts to log in with, no addresses of
// its peers. What was applied before the restart was committed, though, and stays so. The mark remembers
// how far that was, and recover replays the log up to it before Raft starts.

// recover makes the State from the last snapshot and the committed part of the log.
func (c *Cluster) recover() error {
	first := uint64(1)
	snapshots, err := c.snaps.List()
	if err != nil {
		return err
	}
	if len(snapshots) > 0 { // newest first
		_, from, err := c.snaps.Open(snapshots[0].ID)
		if err != nil {
			return err
		}
		s, err := decodeState(from)
		if err := errors.Join(err, from.Close()); err != nil {
			return err
		}
		c.publish(s)
		first = snapshots[0].Index + 1
	}
	last, term, err := c.mark.read()
	if err != nil {
		return err
	}
	var entry raft.Log
	if err := c.store.GetLog(last, &entry); errors.Is(err, raft.ErrLogNotFound) || err == nil && entry.Term != term {
		return nil // a snapshot covers it, or the log is not the one that the mark was made for
	}
	for i := first; i <= last; i++ {
		if err := c.store.GetLog(i, &entry); err != nil {
			return err
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		if _, err := c.apply(&entry); err != nil {
			return err
		}
	}
	return nil
}

// apply makes the State after a committed log entry. The first result is what the command says of it; the
// second means that this replica cannot follow the log.
func (c *Cluster) apply(l *raft.Log) (refused, broken error) {
	s := c.State()
	if l.Index <= s.Index {
		return nil, nil // recover was here before Raft
	}
	e, err := decodeEntry(l.Data)
	if err != nil {
		return nil, err
	}
	next, refused := s.next(l.Index, e)
	c.publish(next)
	return refused, nil
}

// mark is a file that holds the index and term of an applied log entry. It may lag behind, never be ahead.
type mark struct{ file *os.File }

const markSize = 20 // index, term, CRC-32C of both; big endian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &mark{f}, nil
}

// read returns zeros when nothing, or nothing whole, was written.
func (m *mark) read() (index, term uint64, err error) {
	b := make([]byte, markSize)
	if _, err := m.file.ReadAt(b, 0); err == io.EOF {
		return 0, 0, nil
	} else if err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return 0, 0, nil
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), nil
}

// write records an applied entry. Without flush it survives the end of the process, not of the machine:
// after a power cut the mark is some seconds old, and the leader tells the rest.
func (m *mark) write(index, term uint64, flush bool) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, markSize), index)
	b = binary.BigEndian.AppendUint64(b, term)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := m.file.WriteAt(b, 0); err != nil {
		return err
	}
	if !flush {
		return nil
	}
	return m.file.Sync()
}

func (m *mark) close() error { return errors.Join(m.file.Sync(), m.file.Close()) }
