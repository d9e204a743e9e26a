package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
	toml "github.com/pelletier/go-toml/v2"
)

// config is the daemon's configuration file (TOML). Unknown settings are errors, so that a mistyped one
// is not taken for its default.
type config struct {
	Name       string   `toml:"name" comment:"of this node in the cluster: letters a-z, digits and hyphens"`
	DataDir    string   `toml:"data_dir" comment:"where the node keeps its own data"`
	Socket     string   `toml:"socket" comment:"Unix socket for the command line"`
	RestartDir string   `toml:"restart_dir,omitempty" comment:"commands that restart applications; only root should be able to write here"`
	Units      []string `toml:"restart_units,omitempty" comment:"systemd units that may be restarted as applications, such as wildfly.service"`
	CodesDir   string   `toml:"codes_dir,omitempty" comment:"codes for applications that get them in files; on a tmpfs or ramfs, for this node alone"`
	ClockLimit string   `toml:"clock_limit,omitempty" comment:"how far the clock of another node may be off before nothing is certified, from 1s to 5m; 30s when empty"`
	LogLevel   string   `toml:"log_level,omitempty" comment:"debug, info, warn or error"`

	Peer struct {
		Listen  string `toml:"listen" comment:"host:port where other nodes connect"`
		Address string `toml:"address" comment:"host:port under which they reach it"`
	} `toml:"peer"`
	WebConf struct {
		Listen string `toml:"listen" comment:"host:port of the console"`
		URL    string `toml:"url" comment:"https URL of the console"`

		PasskeyDomain string `toml:"passkey_domain,omitempty" comment:"domain of all consoles of the cluster, for passkeys; none when empty"`
	} `toml:"webconf"`
	Seal struct {
		PassphraseFile string `toml:"passphrase_file,omitempty" comment:"file with the passphrase of the node key, such as a systemd credential; without it somebody enters the passphrase after each start"`
		TPM            string `toml:"tpm,omitempty" comment:"TPM 2.0 that may seal the node key, usually /dev/tpmrm0"`
	} `toml:"seal,omitempty"`
	Syslog      *syslogConfig      `toml:"syslog,omitempty" comment:"where audit entries are sent"`
	Modules     []moduleConfig     `toml:"module"`
	Kubernetes  []kubernetesConfig `toml:"kubernetes,omitempty"`
	Webhooks    []webhookConfig    `toml:"webhook,omitempty"`
	AdminModule string             `toml:"admin_module,omitempty" comment:"which module holds the node's identity; the first one when empty"`
}

type moduleConfig struct {
	Name     string            `toml:"name"`
	Path     string            `toml:"path"`
	Env      map[string]string `toml:"env,omitempty"`
	InitArgs string            `toml:"init_args,omitempty"`
}

// kubernetesConfig is a Kubernetes whose workloads may be restarted.
type kubernetesConfig struct {
	Name      string `toml:"name" comment:"as applications name it"`
	Server    string `toml:"server" comment:"https URL of the API"`
	CAFile    string `toml:"ca_file,omitempty" comment:"certificates to verify it by; the system's when missing"`
	TokenFile string `toml:"token_file" comment:"bearer token"`
}

// webhookConfig is an address that is told when an application is to be restarted.
type webhookConfig struct {
	Name   string `toml:"name" comment:"as applications name it"`
	URL    string `toml:"url" comment:"https"`
	CAFile string `toml:"ca_file,omitempty" comment:"certificates to verify it by; the system's when missing"`
}

// syslogConfig is a sink that takes RFC 5424 messages over TLS (RFC 5425). Its files are read at each
// connection, so that a wrong one keeps no node from starting; the console and the log tell of it.
type syslogConfig struct {
	Address     string `toml:"address" comment:"host:port of the sink; its certificate must name the host"`
	CAFile      string `toml:"ca_file" comment:"PEM; who may have signed the sink's certificate"`
	Certificate string `toml:"certificate,omitempty" comment:"PEM; shown to the sink, where it asks for one"`
	Key         string `toml:"key,omitempty" comment:"PEM; belongs to the certificate"`
	Facility    string `toml:"facility,omitempty" comment:"authpriv when empty"`
}

func (c *syslogConfig) check() error {
	if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
		return fmt.Errorf("syslog.address must be host:port, not %q", c.Address)
	}
	if (c.Certificate == "") != (c.Key == "") {
		return errors.New("syslog.certificate and syslog.key belong together: give both or none")
	}
	for _, p := range []struct{ what, path string }{{"ca_file", c.CAFile}, {"certificate", c.Certificate}, {"key", c.Key}} {
		if p.path != "" && !filepath.IsAbs(p.path) || p.path == "" && p.what == "ca_file" {
			return fmt.Errorf("syslog.%s must be an absolute path, not %q", p.what, p.path)
		}
	}
	c.Facility = cmp.Or(c.Facility, node.DefaultFacility)
	if _, ok := node.SyslogFacilities[c.Facility]; !ok {
		return fmt.Errorf("syslog.facility %q is none of %s", c.Facility, strings.Join(slices.Sorted(maps.Keys(node.SyslogFacilities)), ", "))
	}
	return nil
}

func readConfig(path string) (config, error) {
	var c config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			return c, fmt.Errorf("configuration %s has settings that do not exist:\n%s", path, strict.String())
		}
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			return c, fmt.Errorf("configuration %s:\n%s", path, at.String())
		}
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c *config) check() error {
	if err := cluster.CheckNodeName(c.Name); err != nil {
		return err
	}
	c.Socket = cmp.Or(c.Socket, defaultSocket)
	c.CodesDir = cmp.Or(c.CodesDir, defaultCodes)
	for _, p := range []struct{ what, path string }{{"data_dir", c.DataDir}, {"socket", c.Socket}, {"restart_dir", c.RestartDir}, {"codes_dir", c.CodesDir},
		{"seal.passphrase_file", c.Seal.PassphraseFile}, {"seal.tpm", c.Seal.TPM}} {
		if p.path == "" && (p.what == "data_dir" || p.what == "socket") {
			return fmt.Errorf("%s is missing", p.what)
		}
		if p.path != "" && !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s must be an absolute path, not %q", p.what, p.path)
		}
	}
	for _, p := range []struct{ what, address string }{{"peer.listen", c.Peer.Listen}, {"peer.address", c.Peer.Address}, {"webconf.listen", c.WebConf.Listen}} {
		if _, _, err := net.SplitHostPort(p.address); err != nil {
			return fmt.Errorf("%s must be host:port, not %q", p.what, p.address)
		}
	}
	if _, err := c.clockLimit(); err != nil {
		return err
	}
	if u, err := url.Parse(c.WebConf.URL); err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("webconf.url must be an https URL without a path, not %q", c.WebConf.URL)
	}
	if c.WebConf.PasskeyDomain != "" {
		if err := node.CheckPasskeyDomain(c.WebConf.PasskeyDomain, c.WebConf.URL); err != nil {
			return fmt.Errorf("webconf.passkey_domain: %w", err)
		}
	}
	if len(c.Modules) == 0 {
		return errors.New("there is no [[module]]: name at least one PKCS#11 module")
	}
	seen := map[string]bool{}
	for _, m := range c.Modules {
		if err := cluster.CheckNodeName(m.Name); err != nil {
			return fmt.Errorf("the name of a module: %w", err)
		}
		if seen[m.Name] || !filepath.IsAbs(m.Path) {
			return fmt.Errorf("module %q needs a name of its own and an absolute path", m.Name)
		}
		seen[m.Name] = true
	}
	if err := c.checkOutward(); err != nil {
		return err
	}
	if c.Syslog != nil {
		if err := c.Syslog.check(); err != nil {
			return err
		}
	}
	if c.AdminModule != "" && !seen[c.AdminModule] {
		return fmt.Errorf("admin_module %q is not one of the modules", c.AdminModule)
	}
	return nil
}

// clockLimit is 0 where the file says nothing. Beyond five minutes packages are refused anyway.
func (c *config) clockLimit() (time.Duration, error) {
	if c.ClockLimit == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(c.ClockLimit)
	if err != nil || d < time.Second || d > syncpkg.MaxSkew {
		return 0, fmt.Errorf("clock_limit must be a time from 1s to 5m, such as 30s, not %q", c.ClockLimit)
	}
	return d, nil
}

// checkOutward checks what the daemon calls to have applications restarted.
func (c *config) checkOutward() error {
	seen := map[string]bool{}
	named := func(kind, name, address string, files ...string) error {
		if err := cluster.CheckNodeName(name); err != nil {
			return fmt.Errorf("the name of a %s: %w", kind, err)
		}
		if seen[kind+name] {
			return fmt.Errorf("there are two of %s %q", kind, name)
		}
		seen[kind+name] = true
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("%s %q needs an https URL without a password, not %q", kind, name, address)
		}
		for _, f := range files {
			if f != "" && !filepath.IsAbs(f) {
				return fmt.Errorf("%s %q: files are named by absolute paths, not %q", kind, name, f)
			}
		}
		return nil
	}
	for _, k := range c.Kubernetes {
		if err := named("[[kubernetes]]", k.Name, k.Server, k.CAFile, k.TokenFile); err != nil {
			return err
		}
		if k.TokenFile == "" {
			return fmt.Errorf("[[kubernetes]] %q needs a token_file", k.Name)
		}
	}
	for _, w := range c.Webhooks {
		if err := named("[[webhook]]", w.Name, w.URL, w.CAFile); err != nil {
			return err
		}
	}
	return nil
}

// defaultCodes is where codes for applications are. /run is in memory on every system with systemd.
const defaultCodes = "/run/keyferry/codes"

// node is the configuration as package node takes it.
func (c *config) node() node.Config {
	n := node.Config{
		Name: c.Name, Dir: c.DataDir, Version: version(), PeerListen: c.Peer.Listen, PeerAddress: c.Peer.Address,
		WebURL: strings.TrimRight(c.WebConf.URL, "/"), PasskeyDomain: c.WebConf.PasskeyDomain, AdminModule: c.AdminModule, RestartDir: c.RestartDir, Units: c.Units, CodesDir: c.CodesDir,
		Seal: node.SealConfig{PassphraseFile: c.Seal.PassphraseFile, TPM: c.Seal.TPM},
	}
	n.ClockLimit, _ = c.clockLimit() // checked when the file was read
	if s := c.Syslog; s != nil {
		n.Syslog = node.SyslogConfig{Address: s.Address, CAFile: s.CAFile, Certificate: s.Certificate, Key: s.Key, Facility: s.Facility}
	}
	for _, m := range c.Modules {
		n.Modules = append(n.Modules, node.ModuleConfig{Name: m.Name, Path: m.Path, Env: m.Env, InitArgs: m.InitArgs})
	}
	for _, k := range c.Kubernetes {
		n.Kubernetes = append(n.Kubernetes, node.KubernetesConfig(k))
	}
	for _, w := range c.Webhooks {
		n.Webhooks = append(n.Webhooks, node.WebhookConfig(w))
	}
	return n
}

func envOr(name, other string) string { return cmp.Or(os.Getenv(name), other) }
