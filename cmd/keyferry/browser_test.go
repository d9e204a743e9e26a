package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// A tab is a person with a browser that trusts the cluster's owner certificate and nothing else.
type tab struct {
	t   testing.TB
	ctx context.Context
	dir string // where downloads go
}

func openBrowser(t testing.TB, caFile string) *tab {
	t.Helper()
	home := t.TempDir()
	store := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	certutil := hsmtest.Tool(t, "certutil")
	for _, args := range [][]string{{"-N", "--empty-password"}, {"-A", "-t", "C,,", "-n", "keyferry", "-i", caFile}} {
		if out, err := exec.Command(certutil, append(args, "-d", "sql:"+store)...).CombinedOutput(); err != nil {
			t.Fatalf("certutil: %v\n%s", err, out)
		}
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(hsmtest.Tool(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.Env("HOME="+home), chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, end := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context that starts it
		t.Fatal(err)
	}
	b := &tab{t, ctx, t.TempDir()}
	b.do("allow downloads", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: b.dir})
		return err
	}))
	return b
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("body")))
		b.screenshot("failed")
		b.t.Fatalf("%s: %v\nThe page says:\n%s", what, err, text)
	}
}

func (b *tab) visit(url string) { b.t.Helper(); b.do("visit "+url, chromedp.Navigate(url)) }

// click clicks a link or button by its words.
func (b *tab) click(words string) {
	b.t.Helper()
	x := chromedp.Search(fmt.Sprintf(`(//main|//header)//*[self::a or self::button][contains(normalize-space(.), %q)]`, words))
	b.do("click "+words, chromedp.Click(x, chromedp.NodeVisible))
}

// send clicks the button of a form and waits for the page that answers: what loads the page again before
// then takes the form back.
func (b *tab) send(words string) {
	b.t.Helper()
	b.do("mark the page", chromedp.Evaluate[chromedp.Void]("window.before = true"))
	b.click(words)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		fresh, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`!window.before && document.readyState === "complete"`))
		if err == nil && fresh {
			return
		}
		if time.Now().After(deadline) {
			b.screenshot("failed")
			b.t.Fatalf("no page answered %q (%v)", words, err)
		}
	}
}

// menu follows a link of the navigation.
func (b *tab) menu(words string) {
	b.t.Helper()
	b.do("menu "+words, chromedp.Click(chromedp.Search(fmt.Sprintf(`//nav//a[contains(normalize-space(.), %q)]`, words)), chromedp.NodeVisible))
	b.see(words)
}

// fill types into the field with a name.
func (b *tab) fill(name, value string) {
	b.t.Helper()
	b.do("fill "+name, chromedp.SendKeys(chromedp.CSS(fmt.Sprintf(`main [name=%q]`, name)), value, chromedp.NodeVisible))
}

// see waits until the page says something.
func (b *tab) see(words string) {
	b.t.Helper()
	b.do("see "+words, chromedp.WaitVisible(chromedp.Search(fmt.Sprintf(`//main//*[contains(normalize-space(.), %q)]`, words))))
}

// reloadUntil loads the page again until it says something: it shows what other nodes do. A page that loads
// itself again at the same moment may spoil that; the next time does it.
func (b *tab) reloadUntil(words string) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("main")))
		if err == nil && strings.Contains(strings.Join(strings.Fields(text), " "), words) {
			return
		}
		if time.Now().After(deadline) {
			b.screenshot("failed")
			b.t.Fatalf("the page never said %q (%v):\n%s", words, err, text)
		}
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		chromedp.Do(ctx, chromedp.Sleep(300*time.Millisecond), chromedp.Reload())
		cancel()
	}
}

// screenshot keeps a picture where KEYFERRY_SCREENSHOTS says.
func (b *tab) screenshot(name string) {
	dir := os.Getenv("KEYFERRY_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600)
	}
	if err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
	}
}

func (b *tab) login(webconf string, a readyAdmin) {
	b.t.Helper()
	b.visit(webconf)
	b.fill("name", a.User)
	b.fill("password", a.Password)
	b.click("Log in")
	b.see("Status")
}

// downloaded waits for the one file that the browser downloads.
func (b *tab) downloaded() string {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(b.dir, "*.keyferry")); len(files) == 1 {
			return files[0]
		}
	}
	b.t.Fatal("nothing was downloaded")
	return ""
}

// browserStory is the main job as an administrator does it: the key that another program has made on
// node1 is carried to node2, and from there the other programs can use it.
func browserStory(t *testing.T, d *testDemo) {
	b := openBrowser(t, d.CAFile)
	b.visit(d.Nodes[0].WebConf) // a wrong password first
	b.fill("name", d.Admin.User)
	b.fill("password", "not the password")
	b.click("Log in")
	b.see("wrong")
	b.login(d.Nodes[0].WebConf, d.Admin)
	b.screenshot("story-1-status")
	b.menu("PKCS#11 slots")
	b.see("demo-ca")
	b.see("Active")
	b.screenshot("story-2-slots")
	b.menu("Key coverage")
	b.see(storyLabel)
	b.see("Failover is not complete")
	b.see("Missing")
	b.screenshot("story-3-coverage")

	b.visit(d.Nodes[0].WebConf + "/sync?slot=" + url.QueryEscape(d.Slots[0].Label))
	b.see("lacks 1 key")
	b.screenshot("story-4-plan")
	b.send("Make package")
	b.reloadUntil("The package is made")
	b.click("See the package")
	b.see("Receipts")
	b.screenshot("story-5-package")
	b.click("Download")
	file := b.downloaded()

	b.do("switch to node2", chromedp.Click(chromedp.Search(`//header//a[contains(normalize-space(.), "node2")]`), chromedp.NodeVisible))
	b.see("Log in")
	b.login(d.Nodes[1].WebConf, d.Admin)
	b.menu("Key synchronization")
	b.do("choose the file", chromedp.SetUploadFiles(chromedp.CSS(`input[type=file]`), []string{file}))
	b.click("Upload and look")
	b.see("What an import does here")
	b.see(storyLabel)
	b.see("1 key to import")
	b.screenshot("story-6-preview")
	if k, _ := d.coverage(t, 1, storyLabel); k.Nodes["node2"] != node.Missing {
		t.Errorf("after the preview the key is %s", k.Nodes["node2"])
	}
	b.send("Import 1 key")
	b.reloadUntil("Imported 1 Already there 0")
	b.screenshot("story-7-imported")
	d.must(t, 2, "", "sync", "import", file) // node3, by command line
	b.menu("Key coverage")
	b.reloadUntil("Any node can fail without a key being lost")
	b.screenshot("story-8-complete")
	b.menu("Audit log")
	b.do("see the import in the table", chromedp.WaitVisible(chromedp.Search(`//main//tbody//*[contains(normalize-space(.), "Package imported")]`))) // not as a choice of the filter
	b.screenshot("story-9-audit")

	b.visit(d.Nodes[0].WebConf + "/sync")
	b.reloadUntil("2 of 2 imported")
	signAfterStory(t, d)
	b.click("Log out")
	b.see("Log in")
}

// signAfterStory signs with the story's key on node2 and verifies with the certificate from node1.
func signAfterStory(t *testing.T, d *testDemo) {
	dir := t.TempDir()
	cert, public := filepath.Join(dir, "cert.der"), filepath.Join(dir, "public.der")
	f := foreign{d, 0}
	f.pkcs11Tool(t, "--read-object", "--type", "cert", "--id", storyID, "--output-file", cert)
	pem := f.run(t, "openssl", "x509", "-inform", "DER", "-in", cert, "-noout", "-pubkey")
	if err := os.WriteFile(public+".pem", pem, 0o600); err != nil {
		t.Fatal(err)
	}
	f.run(t, "openssl", "pkey", "-pubin", "-in", public+".pem", "-outform", "DER", "-out", public)
	for i := 1; i < demoNodes; i++ {
		foreign{d, i}.signAndVerify(t, storyID, public)
	}
}
