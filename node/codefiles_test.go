package node

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"golang.org/x/sys/unix"
)

// inMemory makes a directory of the test's own on a file system in memory.
func inMemory(t testing.TB) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		hsmtest.Missing(t, "a tmpfs on /dev/shm")
	}
	dir, err := os.MkdirTemp("/dev/shm", "keyferry-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// written puts a code and tells whether it had to be written.
func written(t testing.TB, c *codeFiles, app, slot, code string, d cluster.Delivery) bool {
	t.Helper()
	wrote := false
	if err := c.put(app, slot, []byte(code), d, func(f func() error) error { wrote = true; return f() }); err != nil {
		t.Fatal(err)
	}
	return wrote
}

var toOwner = cluster.Delivery{Kind: cluster.DeliverFile, Mode: cluster.ModeOwner}

func TestCodeFile(t *testing.T) {
	c := newCodeFiles(filepath.Join(inMemory(t), "a", "codes"), "node1")
	defer unix.Umask(unix.Umask(0o077))
	if !written(t, c, "nginx", "web", "secret", toOwner) || written(t, c, "nginx", "web", "secret", toOwner) {
		t.Error("a code is written once, and left while it is as it should be")
	}
	path := filepath.Join(c.dir, "nginx", "web")
	for _, c := range []struct {
		path string
		mode fs.FileMode
	}{{path, 0o400}, {filepath.Dir(path), fs.ModeDir | 0o711}, {c.dir, fs.ModeDir | 0o711}} {
		if info, err := os.Stat(c.path); err != nil || info.Mode() != c.mode {
			t.Errorf("%s: %v, %v", c.path, info.Mode(), err)
		}
	}
	if b, err := os.ReadFile(path); string(b) != "secret" {
		t.Errorf("the file has %q, %v", b, err)
	}
	again := toOwner
	again.Mode = cluster.ModeGroup
	if !written(t, c, "nginx", "web", "secret", again) || !written(t, c, "nginx", "web", "newer", again) {
		t.Error("another mode or code did not get there")
	}
	written(t, c, "nginx", "other", "1", toOwner)
	written(t, c, "signer", "web", "2", toOwner)
	removed, err := c.sweep(func(app, file string) bool { return app == "nginx" && file == "web" })
	if err != nil || len(removed) != 2 {
		t.Errorf("swept %v, %v", removed, err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "signer")); err == nil {
		t.Error("an empty directory is left")
	}
	if b, _ := os.ReadFile(path); string(b) != "newer" {
		t.Errorf("the file that was to stay has %q", b)
	}
}

// Owner and group are found on the node; a file never belongs to an accidental user.
func TestCodeFileOwner(t *testing.T) {
	c := newCodeFiles(filepath.Join(inMemory(t), "codes"), "node1")
	for _, d := range []cluster.Delivery{{Owner: "no-such-user"}, {Group: "no-such-group"}} {
		d.Kind, d.Mode = cluster.DeliverFile, cluster.ModeOwner
		err := c.put("app", "s", []byte("x"), d, func(f func() error) error { return f() })
		if err == nil || !strings.Contains(err.Error(), "on this node") {
			t.Errorf("%+v: %v", d, err)
		}
	}
	if os.Getuid() != 0 {
		hsmtest.Missing(t, "the right to give files away (root)")
	}
	for _, c2 := range []struct {
		d        cluster.Delivery
		uid, gid uint32
	}{
		{cluster.Delivery{Owner: "nobody"}, 65534, 65534}, {cluster.Delivery{Owner: "nobody", Group: "daemon"}, 65534, 1},
		{cluster.Delivery{Owner: "12345", Group: "54321"}, 12345, 54321}, {cluster.Delivery{Owner: "0"}, 0, 0},
	} {
		c2.d.Kind, c2.d.Mode = cluster.DeliverFile, cluster.ModeGroup
		written(t, c, "app", "s", "code", c2.d)
		info, err := os.Stat(c.path("app", "s"))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != c2.uid || st.Gid != c2.gid || info.Mode() != 0o440 {
			t.Errorf("%+v: uid %d, gid %d, %v", c2.d, st.Uid, st.Gid, info.Mode())
		}
	}
}

// A code goes nowhere but to a directory in memory that is this node's alone.
func TestCodeFileRefused(t *testing.T) {
	mem := inMemory(t)
	disk := t.TempDir()
	make := func(name string, f func(dir string) error) string {
		t.Helper()
		dir := filepath.Join(mem, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := f(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	link := filepath.Join(mem, "link")
	if err := os.Symlink(make("real", func(string) error { return nil }), link); err != nil {
		t.Fatal(err)
	}
	foreign := func(dir string) error { return os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600) }
	for _, c := range []struct{ what, dir, says string }{
		{"nowhere", "", "codes_dir"},
		{"a disk", filepath.Join(disk, "codes"), "on a disk"},
		{"a link", link, "symbolic link"},
		{"below a link", filepath.Join(link, "codes"), "symbolic link"},
		{"a file", filepath.Join(make("f", foreign), "precious"), "not a directory"},
		{"others' files", make("mixed", foreign), "did not make"},
		{"open to others", make("open", func(dir string) error { return os.Chmod(dir, 0o777) }), "chmod go-w"},
		{"below one that is open", filepath.Join(make("loose", func(dir string) error { return os.Chmod(dir, 0o770) }), "codes"), "chmod go-w"},
		{"of another node", make("other", func(dir string) error { return os.WriteFile(filepath.Join(dir, ownerMark), []byte("node2"), 0o600) }), "another node"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newCodeFiles(c.dir, "node1")
			err := f.put("app", "s", []byte("secret"), toOwner, func(f func() error) error { return f() })
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
			if _, err := f.sweep(func(string, string) bool { return false }); err == nil && c.dir != "" {
				t.Error("what is not this node's would be removed")
			}
		})
	}
	if _, err := os.Stat(filepath.Join(mem, "mixed", "precious")); err != nil {
		t.Error("a foreign file was removed")
	}
}

// Whoever can write to an application's directory cannot lead a code elsewhere.
func TestCodeFileFollowsNoLink(t *testing.T) {
	mem := inMemory(t)
	c := newCodeFiles(filepath.Join(mem, "codes"), "node1")
	written(t, c, "app", "s", "old", toOwner)
	target := filepath.Join(mem, "target")
	if err := os.WriteFile(target, []byte("keep"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s", ".new"} {
		path := filepath.Join(c.dir, "app", name)
		os.Remove(path)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	written(t, c, "app", "s", "new", toOwner)
	if b, _ := os.ReadFile(target); string(b) != "keep" {
		t.Errorf("the code went to %q", b)
	}
	if info, err := os.Lstat(c.path("app", "s")); err != nil || info.Mode() != 0o400 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if err := os.Remove(filepath.Join(c.dir, "app", "s")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.dir, "app")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mem, filepath.Join(c.dir, "app")); err != nil {
		t.Fatal(err)
	}
	if err := c.put("app", "s", []byte("x"), toOwner, func(f func() error) error { return f() }); err == nil {
		t.Error("a link was taken for the application's directory")
	}
}

// Labels may have any printable character; names of files and URIs are safe and differ.
func TestCodeFileNames(t *testing.T) {
	c := newCodeFiles("/run/keyferry/codes", "node1")
	names := map[string]string{}
	for label, want := range map[string]string{
		"web": "web", "CA 2026": "CA_202026", "../../etc/passwd": "_2e._2f.._2fetc_2fpasswd", "a/b": "a_2fb", "a_2fb": "a_5f2fb", "Straße": "Stra_c3_9fe", ".": "_2e", "..": "_2e.", "%41": "_2541", "a;b?c#d&e": "a_3bb_3fc_23d_26e",
	} {
		got := fileName(label)
		if want != "" && got != want || strings.ContainsAny(got, "/%;?#& ") || names[got] != "" {
			t.Errorf("%q becomes %q, want %q", label, got, want)
		}
		names[got] = label
	}
	if got, want := c.uri("nginx", "CA 1;2"), "pkcs11:token=CA%201%3B2?pin-source=file:/run/keyferry/codes/nginx/CA_201_3b2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
