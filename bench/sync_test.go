package bench

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
	"github.com/miekg/pkcs11"
)

func TestMain(m *testing.M) { hsmtest.Main(m) }

var console = cluster.Actor{Kind: cluster.ByConsole, Name: "bench"}

const code = "benchmark code"

// BenchmarkSync makes and imports packages between two nodes, beside the bare calls on tokens of the same
// two SoftHSMs: C_WrapKey for each key on the source, C_UnwrapKey to the token for each key on the
// receiver. Import includes everything from the click to the signed receipt: verifying and opening the
// package, journal, unwrapping, two proofs and the public key object for each key.
func BenchmarkSync(b *testing.B) {
	c := newCluster(b)
	for _, kind := range []string{"P-256", "RSA-2048"} {
		for _, n := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				for i := range b.N {
					c.measure(b, kind, n, i)
				}
			})
		}
	}
}

// A benchCluster is two nodes, and their SoftHSMs as a bare program uses them.
type benchCluster struct {
	nodes  []*node.Member
	bare   []*Bare
	primes []*big.Int
}

func newCluster(b *testing.B) *benchCluster {
	c := &benchCluster{}
	for i := range 2 {
		dir := b.TempDir()
		soft := hsmtest.SoftHSM(b, dir)
		address := free(b)
		n, err := node.Open(b.Context(), node.Config{
			Name: fmt.Sprintf("node%d", i+1), Dir: filepath.Join(dir, "data"), Version: "bench", PeerListen: address, PeerAddress: address, WebURL: "https://" + free(b),
			Modules: []node.ModuleConfig{{Name: "softhsm", Path: soft.Path, Env: soft.Env}},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(n.Close)
		c.join(b, n)
		bare, err := OpenBare(soft.Path, soft.Env["SOFTHSM2_CONF"], dir)
		if err != nil {
			b.Fatal(err)
		}
		c.bare = append(c.bare, bare)
	}
	return c
}

func (c *benchCluster) join(b *testing.B, n *node.Node) {
	if len(c.nodes) == 0 {
		if _, err := n.Found(b.Context(), console, "bench"); err != nil {
			b.Fatal(err)
		}
	} else {
		inv, err := c.nodes[0].Invite(b.Context(), console, n.Name(), time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := n.Join(b.Context(), inv.Address, inv.Fingerprint, inv.Code); err != nil {
			b.Fatal(err)
		}
	}
	m, err := n.Member()
	if err != nil {
		b.Fatal(err)
	}
	c.nodes = append(c.nodes, m)
}

func free(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// measure runs the floor and the product on fresh tokens, one after the other, and reports both.
func (c *benchCluster) measure(b *testing.B, kind string, n, round int) {
	b.StopTimer()
	label := fmt.Sprintf("%s %d/%d", kind, n, round)
	// Both nodes have a token that the product will use, and one for the floor.
	for _, m := range c.nodes {
		for _, l := range []string{label, label + " bare"} {
			if err := m.Slots.Create(b.Context(), console, node.NewSlot{Label: l, Mode: cluster.Manual, Code: []byte(code)}); err != nil {
				b.Fatal(err)
			}
		}
	}
	c.reopen(b)
	source := c.token(b, 0, label)
	keys, keyType := c.makeKeys(b, source, kind, n)
	began := time.Now()
	blobs, err := source.Wrap(keys)
	if err != nil {
		b.Fatal(err)
	}
	floorExport := time.Since(began)
	target := c.token(b, 1, label+" bare")
	began = time.Now()
	if err := target.Unwrap(blobs, keyType); err != nil {
		b.Fatal(err)
	}
	floorImport := time.Since(began)

	c.settle(b, label, n)
	began = time.Now()
	build := c.finish(b, c.nodes[0])(c.nodes[0].Sync.Build(b.Context(), console, label, []string{"node2"}))
	export := time.Since(began)
	s, err := c.nodes[0].Sync.Get(build.Result)
	if err != nil {
		b.Fatal(err)
	}
	f, err := c.nodes[0].Sync.File(s)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	began = time.Now()
	staged, err := c.nodes[1].Sync.Stage(b.Context(), console, f)
	if err != nil {
		b.Fatal(err)
	}
	imported := c.finish(b, c.nodes[1])(c.nodes[1].Sync.Import(b.Context(), console, staged.SHA256))
	took := time.Since(began)
	if r := imported.Report; r.Imported != n || !r.Receipt {
		b.Fatalf("%d of %d keys were imported, receipt %v", r.Imported, n, r.Receipt)
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }
	b.ReportMetric(0, "ns/op") // means nothing here
	b.ReportMetric(per(floorExport), "ms/key-C_WrapKey")
	b.ReportMetric(per(export), "ms/key-export")
	b.ReportMetric(float64(export)/float64(floorExport), "ratio-export")
	b.ReportMetric(per(floorImport), "ms/key-C_UnwrapKey")
	b.ReportMetric(per(took), "ms/key-import")
	b.ReportMetric(float64(took)/float64(floorImport), "ratio-import")
}

// reopen makes the bare programs see tokens that were made after they loaded SoftHSM.
func (c *benchCluster) reopen(b *testing.B) {
	for _, x := range c.bare {
		if err := x.Reload(); err != nil {
			b.Fatal(err)
		}
	}
}

func (c *benchCluster) token(b *testing.B, i int, label string) *Token {
	t, err := c.bare[i].Open(label, code)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// settle waits until the source has told the cluster of all its keys.
func (c *benchCluster) settle(b *testing.B, label string, n int) {
	for {
		s, changed := c.nodes[0].Cluster.Watch()
		if len(s.Keys[label]["node1"].Keys) == n && s.Slots[label].Seats["node2"].Receiver != "" {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			b.Fatal("the source does not list its keys")
		}
	}
}

func (c *benchCluster) finish(b *testing.B, m *node.Member) func(*node.Job, error) node.Job {
	return func(job *node.Job, err error) node.Job {
		if err != nil {
			b.Fatal(err)
		}
		done, err := m.Jobs.Wait(b.Context(), job)
		if err != nil {
			b.Fatal(err)
		}
		return done
	}
}

// makeKeys puts n different keys on a token.
func (c *benchCluster) makeKeys(b *testing.B, t *Token, kind string, n int) (keys []pkcs11.ObjectHandle, keyType uint) {
	var rsaKeys []*rsa.PrivateKey
	if keyType = pkcs11.CKK_EC; kind == "RSA-2048" {
		keyType, rsaKeys = pkcs11.CKK_RSA, c.rsaKeys(b, n)
	}
	for i := range n {
		id, label := fmt.Appendf(nil, "key %04d", i), fmt.Sprintf("key %04d", i)
		var k pkcs11.ObjectHandle
		var err error
		if rsaKeys != nil {
			k, err = t.CreateRSA(rsaKeys[i], id, label)
		} else {
			k, err = t.GenerateEC(id, label)
		}
		if err != nil {
			b.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys, keyType
}

// rsaKeys makes n different RSA keys in seconds instead of minutes: every pair of a few primes is one.
func (c *benchCluster) rsaKeys(b *testing.B, n int) []*rsa.PrivateKey {
	for len(c.primes)*(len(c.primes)-1)/2 < n {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			b.Fatal(err)
		}
		c.primes = append(c.primes, p)
	}
	one, e := big.NewInt(1), big.NewInt(65537)
	var keys []*rsa.PrivateKey
	for i, p := range c.primes {
		for _, q := range c.primes[:i] {
			phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
			d := new(big.Int).ModInverse(e, phi)
			modulus := new(big.Int).Mul(p, q)
			if d == nil || modulus.BitLen() != 2048 {
				continue
			}
			k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: modulus, E: 65537}, D: d, Primes: []*big.Int{p, q}}
			k.Precompute()
			if keys = append(keys, k); len(keys) == n {
				return keys
			}
		}
	}
	b.Fatalf("only %d of %d RSA keys", len(keys), n)
	return nil
}
