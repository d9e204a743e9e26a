package node

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"golang.org/x/sys/unix"
)

// codeFiles is a directory with codes for applications: one directory for each application, in it one file
// for each slot. It is on a file system in memory, so that no code ever gets on a disk. Every step goes by
// file descriptors and follows no symbolic link, so that nobody can have a code written to another place.
type codeFiles struct {
	dir  string
	node string // whose it is
}

func newCodeFiles(dir, node string) *codeFiles { return &codeFiles{dir: dir, node: node} }

// ownerMark is a file that says which node a directory belongs to. Whatever else is in a directory with
// such a mark is removed when it is not wanted, so there must be no doubt whose it is.
const ownerMark = ".keyferry"

var errNoCodesDir = errors.New("this node's configuration names no directory for codes (codes_dir)")

const noLink = unix.O_NOFOLLOW | unix.O_CLOEXEC

// path is where an application finds the code of a slot.
func (c *codeFiles) path(app, slot string) string { return filepath.Join(c.dir, app, fileName(slot)) }

// uri is the RFC 7512 URI of a slot with that file.
func (c *codeFiles) uri(app, slot string) string {
	return "pkcs11:token=" + escapeURI(slot, "") + "?pin-source=file:" + escapeURI(c.path(app, slot), "/")
}

// escapeURI percent-encodes all but the unreserved characters of RFC 3986 and those in keep.
func escapeURI(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isAlphanumeric(c) || strings.IndexByte("-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// fileName makes a file name of a slot's label. It has no character that a path, a shell or a URI reads in
// another way, so programs that decode pin-source once, twice or not at all find the same file.
func fileName(label string) string {
	var b strings.Builder
	for i := range len(label) {
		if c := label[i]; isAlphanumeric(c) || c == '-' || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// open opens the directory, having made sure that it is in memory and nobody else's. With make it is made
// where it is not there. fs.ErrNotExist says that there is none.
func (c *codeFiles) open(make bool) (int, error) {
	if c.dir == "" {
		return -1, errNoCodesDir
	}
	fd, err := walk(c.dir, make)
	if err != nil {
		return -1, err
	}
	if err := c.claim(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// walk opens a directory step by step from the root.
func walk(path string, make bool) (int, error) {
	fd, err := unix.Open("/", unix.O_DIRECTORY|noLink, 0)
	if err != nil {
		return -1, err
	}
	at := "/"
	for _, part := range strings.Split(strings.Trim(filepath.Clean(path), "/"), "/") {
		at = filepath.Join(at, part)
		next, err := step(fd, part, make)
		unix.Close(fd)
		switch {
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
			return -1, fmt.Errorf("%s is not a directory, or a symbolic link: give codes_dir without links", at)
		case err != nil:
			return -1, fmt.Errorf("%s: %w", at, err)
		}
		fd = next
		if err := private(fd, at, at == filepath.Clean(path)); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// step opens a directory in another, and makes it there where that is asked for.
func step(fd int, name string, make bool) (int, error) {
	next, err := unix.Openat(fd, name, unix.O_DIRECTORY|noLink, 0)
	if !make || !errors.Is(err, unix.ENOENT) {
		return next, err
	}
	if err := unix.Mkdirat(fd, name, 0o711); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	if next, err = unix.Openat(fd, name, unix.O_DIRECTORY|noLink, 0); err != nil {
		return -1, err
	}
	return next, unix.Fchmod(next, 0o711) // whatever the umask: applications must get through, and see nothing else
}

// private refuses a directory in which others can exchange files. On the way, a directory like /tmp, where
// nobody can rename what is another's, will do.
func private(fd int, path string, last bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%s belongs to neither root nor the user that keyferry runs as", path)
	}
	if st.Mode&0o022 != 0 && (last || st.Mode&unix.S_ISVTX == 0) {
		return fmt.Errorf("%s can be changed by others than its owner; run chmod go-w on it", path)
	}
	return nil
}

// claim makes sure that the directory is in memory, and this node's.
func (c *codeFiles) claim(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	if t := uint32(st.Type); t != unix.TMPFS_MAGIC && t != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is on a disk, where codes would outlive their removal: name a directory on a tmpfs or ramfs, such as one below /run (codes_dir)", c.dir)
	}
	mark, err := readAt(fd, ownerMark, 256)
	if err == nil {
		if string(mark) != c.node {
			return fmt.Errorf("%s belongs to another node of this machine: give each node a codes_dir of its own", c.dir)
		}
		return nil
	}
	names, err := list(fd)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%s holds files that Keyferry did not make: give it a directory of its own (codes_dir)", c.dir)
	}
	return putAt(fd, ownerMark, []byte(c.node), os.Getuid(), os.Getgid(), 0o600)
}

// put writes the code of a slot for an application, unless it is there just so.
func (c *codeFiles) put(app, slot string, code []byte, d cluster.Delivery, write func(func() error) error) error {
	uid, gid, err := owner(d)
	if err != nil {
		return err
	}
	mode, err := strconv.ParseUint(d.Mode, 8, 32)
	if err != nil || mode&^0o440 != 0 {
		return fmt.Errorf("the mode %q would let others read the code", d.Mode)
	}
	fd, err := c.open(true)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dir, err := step(fd, app, true)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.dir, app), err)
	}
	defer unix.Close(dir)
	if err := private(dir, filepath.Join(c.dir, app), true); err != nil {
		return err
	}
	if isAt(dir, fileName(slot), code, uid, gid, uint32(mode)) {
		return nil
	}
	return write(func() error {
		err := putAt(dir, fileName(slot), code, uid, gid, uint32(mode))
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: user %d, as whom keyferry runs, cannot give a file to user %d and group %d; let it run as root or with CAP_CHOWN", c.path(app, slot), os.Getuid(), uid, gid)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.path(app, slot), err)
		}
		return nil
	})
}

// there tells whether a file with the code of a slot is there for an application.
func (c *codeFiles) there(app, slot string) bool {
	info, err := os.Lstat(c.path(app, slot))
	return err == nil && info.Mode().IsRegular()
}

// sweep removes every file but those that keep names, and returns the paths of what it removed.
func (c *codeFiles) sweep(keep func(app, file string) bool) (removed []string, err error) {
	if c.dir == "" {
		return nil, nil
	}
	fd, err := c.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	apps, err := list(fd)
	for _, app := range apps {
		if app == ownerMark {
			continue
		}
		dir, derr := step(fd, app, false)
		if derr != nil {
			err = errors.Join(err, unix.Unlinkat(fd, app, 0)) // no directory: nothing that an application was told of
			continue
		}
		files, lerr := list(dir)
		left := 0
		for _, file := range files {
			if keep(app, file) {
				left++
			} else if rerr := unix.Unlinkat(dir, file, 0); rerr != nil {
				err = errors.Join(err, rerr)
			} else {
				removed = append(removed, filepath.Join(c.dir, app, file))
			}
		}
		unix.Close(dir)
		if err = errors.Join(err, lerr); left == 0 && err == nil {
			err = unix.Unlinkat(fd, app, unix.AT_REMOVEDIR)
		}
	}
	return removed, err
}

// putAt writes a file whole or not at all. It is nobody else's before it has its owner and mode.
func putAt(dir int, name string, content []byte, uid, gid int, mode uint32) error {
	const temporary = ".new"
	unix.Unlinkat(dir, temporary, 0) // of a run that ended in between
	fd, err := unix.Openat(dir, temporary, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|noLink, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(content)
	if err == nil {
		err = unix.Fchown(fd, uid, gid)
	}
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(dir, temporary, dir, name)
	}
	if err != nil {
		unix.Unlinkat(dir, temporary, 0)
	}
	return err
}

// isAt tells whether a file is there with just this content, owner, group and mode.
func isAt(dir int, name string, content []byte, uid, gid int, mode uint32) bool {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false
	}
	if st.Mode != unix.S_IFREG|mode || int(st.Uid) != uid || int(st.Gid) != gid || st.Nlink != 1 {
		return false
	}
	b, err := readAt(dir, name, len(content)+1)
	defer clear(b)
	return err == nil && subtle.ConstantTimeCompare(b, content) == 1
}

// readAt reads a file of at most limit bytes.
func readAt(dir int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|noLink, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, limit)
	n, err := unix.Read(fd, b)
	return b[:max(n, 0)], err
}

// list names what is in a directory.
func list(fd int) ([]string, error) {
	again, err := unix.Openat(fd, ".", unix.O_DIRECTORY|noLink, 0) // a position of its own
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// owner finds the user and group that a file is to belong to, on this node.
func owner(d cluster.Delivery) (uid, gid int, err error) {
	uid, gid = os.Getuid(), os.Getgid()
	if d.Owner != "" {
		u, err := user.Lookup(d.Owner)
		if uid, _ = strconv.Atoi(d.Owner); err != nil && uid == 0 && d.Owner != "0" {
			return 0, 0, fmt.Errorf("there is no user %q on this node", d.Owner)
		}
		if err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
		}
	}
	if d.Group == "" {
		return uid, gid, nil
	}
	g, err := user.LookupGroup(d.Group)
	if gid, _ = strconv.Atoi(d.Group); err != nil && gid == 0 && d.Group != "0" {
		return 0, 0, fmt.Errorf("there is no group %q on this node", d.Group)
	}
	if err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	}
	return uid, gid, nil
}
