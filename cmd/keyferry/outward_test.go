package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the daemon calls for others is named by root, once each, over TLS.
func TestOutwardConfig(t *testing.T) {
	const head = `name = "node1"
data_dir = "/var/lib/keyferry"
[peer]
listen = "127.0.0.1:7443"
address = "127.0.0.1:7443"
[webconf]
listen = "127.0.0.1:8443"
url = "https://127.0.0.1:8443"
[[module]]
name = "softhsm"
path = "/usr/lib/softhsm/libsofthsm2.so"
`
	const kube, hook = "[[kubernetes]]\nname = \"prod\"\nserver = \"https://kube.example:6443\"\n", "[[webhook]]\nname = \"deployer\"\n"
	for _, c := range []struct{ what, text, says string }{
		{"all of it", kube + "token_file = \"/etc/t\"\nca_file = \"/etc/c\"\n" + hook + "url = \"https://deploy.example/x?y=1\"\n", ""},
		{"no token", kube, "needs a token_file"},
		{"a relative file", kube + "token_file = \"token\"\n", "absolute paths"},
		{"two of a name", strings.Repeat(kube+"token_file = \"/etc/t\"\n", 2), "there are two"},
		{"http", hook + "url = \"http://deploy.example\"\n", "https URL"},
		{"a password", hook + "url = \"https://u:p@deploy.example\"\n", "without a password"},
		{"a bad name", "[[webhook]]\nname = \"A b\"\nurl = \"https://x\"\n", "not valid"},
		{"an unknown setting", hook + "url = \"https://x\"\nsecret = \"x\"\n", "do not exist"},
	} {
		path := filepath.Join(t.TempDir(), "keyferry.toml")
		if err := os.WriteFile(path, []byte(head+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := readConfig(path)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
		if n := conf.node(); err == nil && (n.CodesDir != defaultCodes || len(n.Kubernetes) != 1 || n.Webhooks[0].URL != "https://deploy.example/x?y=1") {
			t.Errorf("%s: %+v", c.what, n)
		}
	}
}
