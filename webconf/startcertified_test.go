package webconf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"mime/multipart"
	"net/http"
	"testing"
	"time"

	"github.com/keyferry/keyferry/identity"
)

// uploadFiles sends a form with files in it.
func (b *browser) uploadFiles(path string, files map[string][]byte, fields ...string) reply {
	b.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i+1 < len(fields); i += 2 {
		w.WriteField(fields[i], fields[i+1])
	}
	for name, file := range files {
		part, err := w.CreateFormFile(name, name+".crt")
		if err != nil {
			b.t.Fatal(err)
		}
		part.Write(file)
	}
	w.Close()
	return b.do(http.MethodPost, path, &body, "Content-Type", w.FormDataContentType())
}

// TestStartUnderOfflineOwner founds a cluster by pages, under an owner whose key is on no node.
func TestStartUnderOfflineOwner(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	owner, err := identity.OwnerCertificate("Elsewhere", key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	poc, err := x509.ParseCertificate(owner)
	if err != nil {
		t.Fatal(err)
	}
	a, n := newAppliance(t, "node1")
	if r := a.browser(t).post("/request"); r.status == http.StatusOK {
		t.Error("a stranger makes keys")
	}
	b := withCode(t, a, n)
	b.get("/").wants(t, http.StatusOK, "Make the certificate request")
	if r := b.post("/request"); r.location() != "/#request" {
		t.Fatalf("making the request: %d to %q", r.status, r.location())
	}
	page := b.get("/")
	r := b.post("/request", "take", "file")
	r.wants(t, http.StatusOK, "BEGIN CERTIFICATE REQUEST")
	csr, err := identity.DecodeRequest([]byte(r.body))
	if err == nil {
		page.wants(t, http.StatusOK, "Download the request", fmt.Sprintf("%x", sha256.Sum256(csr.RawSubjectPublicKeyInfo)))
	}
	if err != nil || csr.Subject.CommonName != "node1" {
		t.Fatalf("the request: %v, %v", csr, err)
	}
	pic, err := identity.Certificate(csr, poc, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fields := []string{"cluster", "ca-prod", "name", testAccount, "password", testPassword, "again", testPassword}
	for want, files := range map[string]map[string][]byte{
		"not the certificate of this node": {"owner": inPEM(owner)},
		"not the owner":                    {"owner": []byte("no"), "identity": inPEM(pic)},
	} {
		b.uploadFiles("/found", files, fields...).wants(t, http.StatusUnprocessableEntity, want)
	}
	if r := b.uploadFiles("/found", map[string][]byte{"owner": inPEM(pic), "identity": inPEM(pic)}, fields...); r.status != http.StatusSeeOther {
		t.Fatalf("%d %s", r.status, r.text())
	}
	b.arrives().wants(t, http.StatusOK, "No cluster was made", "This is no owner certificate")
	if r := b.uploadFiles("/found", map[string][]byte{"owner": inPEM(owner), "identity": inPEM(pic)}, fields...); r.status != http.StatusSeeOther {
		t.Fatalf("%d %s", r.status, r.text())
	}
	eventually(t, "the node is in a cluster", func() bool { _, err := n.Member(); return err == nil })
	b.arrives().wants(t, http.StatusOK, "This node is now in cluster ca-prod")
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	if m.Identity.HoldsOwner() || !m.Identity.Owner().Equal(poc) {
		t.Errorf("the cluster's owner is %v", m.Identity.Owner().Subject)
	}
}
