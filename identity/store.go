package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFile bounds a file with certificates or a request: a chain of two has 3 KiB.
const maxFile = 64 << 10

// A Store is the certificate store of one installation: a directory with the certificate of its owner, and for
// each device a certificate and, while it waits, a request. All are PEM and none is secret. Files are written
// whole or not at all.
type Store struct{ dir string }

const ownerFile = "owner.crt"

// OpenStore opens a certificate store, and makes the directory where there is none.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	return &Store{dir}, nil
}

// Path is where the file of a device is. Serial numbers come from others too: what is not plain in them is escaped,
// so that none leads out of the directory.
func (s *Store) path(serial, ending string) string {
	var b strings.Builder
	for _, c := range []byte(serial) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	name := b.String()
	if name+ending == ownerFile {
		name = "%" + fmt.Sprintf("%02X", name[0]) + name[1:]
	}
	return filepath.Join(s.dir, name+ending)
}

// OwnerPath, CertificatePath and RequestPath are where the store keeps what they name.
func (s *Store) OwnerPath() string                    { return filepath.Join(s.dir, ownerFile) }
func (s *Store) CertificatePath(serial string) string { return s.path(serial, ".crt") }
func (s *Store) RequestPath(serial string) string     { return s.path(serial, ".csr") }

// Owner is the owner's certificate, nil when the store has none yet.
func (s *Store) Owner() (*x509.Certificate, error) { return s.certificate(s.OwnerPath()) }

// Certificate is the certificate of a device, nil when the store has none.
func (s *Store) Certificate(serial string) (*x509.Certificate, error) {
	return s.certificate(s.CertificatePath(serial))
}

func (s *Store) certificate(path string) (*x509.Certificate, error) {
	c, err := ReadCertificate(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return c, err
}

// CheckOwner refuses a second owner, nil for one that is still to be made: whoever uses the store takes each device
// in it for one of the owner's.
func (s *Store) CheckOwner(poc *x509.Certificate) error {
	have, err := s.Owner()
	if err != nil || have == nil || poc != nil && have.Equal(poc) {
		return err
	}
	return fmt.Errorf("the certificate store %s belongs to another owner, %q (SHA-256 %s): a store has one; name another with --store", s.dir, have.Subject, Fingerprint(have))
}

// PutOwner keeps the owner's certificate in place of the one that is there.
func (s *Store) PutOwner(poc *x509.Certificate) error {
	return WriteCertificates(s.OwnerPath(), poc)
}

// PutCertificate keeps the certificate of a device. The request that it answers is no longer waited for.
func (s *Store) PutCertificate(serial string, pic *x509.Certificate) error {
	if err := WriteCertificates(s.CertificatePath(serial), pic); err != nil {
		return err
	}
	r, err := s.Request(serial)
	if err != nil || r == nil || !SameKey(r.PublicKey, pic.PublicKey) {
		return nil // what cannot be read is not this certificate's request
	}
	return os.Remove(s.RequestPath(serial))
}

// Request is the certificate request of a device, nil when the store has none.
func (s *Store) Request(serial string) (*x509.CertificateRequest, error) {
	r, err := ReadRequest(s.RequestPath(serial))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// PutRequest keeps a request, under the serial number that it names.
func (s *Store) PutRequest(r *x509.CertificateRequest) error {
	return writeFile(s.RequestPath(r.Subject.SerialNumber), EncodeRequest(r))
}

// EncodeRequest is a request in PEM.
func EncodeRequest(r *x509.CertificateRequest) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.Raw})
}

// A Kept is what the store has of one device.
type Kept struct {
	Serial    string    `json:"serial"`
	Name      string    `json:"name"`
	Requested bool      `json:"requested"` // a request waits to be signed
	PIC       Certified `json:"pic"`
	Problem   string    `json:"problem,omitempty"`
}

// List is what the store has of devices, by serial number. A file that cannot be read is a problem in its row.
func (s *Store) List(now time.Time) ([]Kept, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	owner, err := s.Owner()
	if err != nil {
		return nil, err
	}
	rows := map[string]*Kept{}
	row := func(serial string) *Kept {
		if rows[serial] == nil {
			rows[serial] = &Kept{Serial: serial, PIC: Certified{State: None}}
		}
		return rows[serial]
	}
	for _, f := range files {
		path := filepath.Join(s.dir, f.Name())
		switch filepath.Ext(f.Name()) {
		case ".crt":
			if f.Name() == ownerFile {
				continue
			}
			c, err := ReadCertificate(path)
			if err != nil {
				row(f.Name()).Problem = err.Error()
				continue
			}
			k := row(c.Subject.SerialNumber)
			k.Name, k.PIC = c.Subject.CommonName, Show(c, stateUnder(c, owner, now))
		case ".csr":
			r, err := ReadRequest(path)
			if err != nil {
				row(f.Name()).Problem = err.Error()
				continue
			}
			k := row(r.Subject.SerialNumber)
			k.Name, k.Requested = r.Subject.CommonName, true
		}
	}
	var all []Kept
	for _, k := range rows {
		all = append(all, *k)
	}
	slices.SortFunc(all, func(a, b Kept) int { return strings.Compare(a.Serial, b.Serial) })
	return all, nil
}

// stateUnder is the state of a PIC under an owner; a self-signed one has none.
func stateUnder(pic, owner *x509.Certificate, now time.Time) State {
	h := holdings{poc: owner, pic: pic}
	return h.identityState(now)
}

// ReadCertificate reads a PEM file with a certificate of ours; see DecodeChain.
func ReadCertificate(path string) (*x509.Certificate, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	chain, err := DecodeChain(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return chain[0], nil
}

// DecodeChain reads one certificate in PEM, or two, where the second is the owner's who signed the first. Longer
// chains are none of ours.
func DecodeChain(text []byte) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(text, "CERTIFICATE", 2)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, b := range blocks {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 2 && (all[0].CheckSignatureFrom(all[1]) != nil || all[1].CheckSignatureFrom(all[1]) != nil) {
		return nil, errors.New("the second certificate is not that of the owner who signed the first: a chain ends in an owner's own signature")
	}
	return all, nil
}

// ReadRequest reads a PEM file with a certificate request, and checks it.
func ReadRequest(path string) (*x509.CertificateRequest, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r, err := DecodeRequest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// DecodeRequest reads a request in PEM, and checks it.
func DecodeRequest(text []byte) (*x509.CertificateRequest, error) {
	blocks, err := decodePEM(text, "CERTIFICATE REQUEST", 1)
	if err != nil {
		return nil, err
	}
	return ParseRequest(blocks[0])
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than certificates can be", path)
	}
	return b, err
}

func decodePEM(text []byte, kind string, most int) (blocks [][]byte, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("it holds a %q, where a %q was expected", block.Type, kind)
		}
		blocks, text = append(blocks, block.Bytes), rest
	}
	switch n := len(blocks); {
	case n == 0 || len(bytes.TrimSpace(text)) > 0:
		return nil, fmt.Errorf("it is no PEM file with a %s", strings.ToLower(kind))
	case n > most:
		return nil, fmt.Errorf("it holds %d of %q; %d are the most", n, kind, most)
	}
	return blocks, nil
}

// WriteCertificates writes a PEM file, whole or not at all.
func WriteCertificates(path string, chain ...*x509.Certificate) error {
	var b bytes.Buffer
	for _, c := range chain {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return err
		}
	}
	return writeFile(path, b.Bytes())
}

func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
