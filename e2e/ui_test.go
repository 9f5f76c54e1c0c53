//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/browser"
)

// pictures is where the pictures of a story are kept, for whoever sets
// PODNET_E2E_PICTURES to a folder.
func pictures(t testing.TB) string {
	if dir := os.Getenv("PODNET_E2E_PICTURES"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	return t.TempDir()
}

// TestDashboard has a browser on the laptop look at a session and at a rule, and press
// the buttons that matter.
func TestDashboard(t *testing.T) {
	market(t, 1)
	alice.connect(t, "-n", "shop", "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--name", "cart", "--header", "x-user: alice", "--inspect")
	url := "http://" + clusterIP(t, "market", "stall")

	// Something that takes its time, for the plots.
	long := alice.cmd("curl", "-sS", "--limit-rate", "900k", "http://web.shop/blob?size=100M", "-o", "/dev/null").exec(t.Context())
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = long.Process.Kill(); _ = long.Wait() })

	address := alice.podnet("ui").must(t)
	home := address[:strings.Index(address, "/open/")]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	chromium, err := browser.Start(alice.cmd(append([]string{"chromium"}, browser.Arguments(t.TempDir())...)...).exec(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chromium.Close)
	page, err := chromium.Open(ctx, address)
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(t, err)
	// sees waits until the page is as it should be.
	sees := func(t testing.TB, expression string) {
		t.Helper()
		soon, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		if err := page.Until(soon, expression); err != nil {
			var text string
			_ = page.Eval(ctx, `document.body.innerText`, &text)
			t.Fatalf("%v; it says\n%s\nand the browser complains %q", err, text, page.Complaints())
		}
	}
	sees(t, `document.querySelector("h1")?.textContent === "Overview"`)
	report(t, "dashboard, from starting the browser to the page", time.Since(start).Round(10*time.Millisecond))
	sees(t, `document.body.innerText.includes("podnet-gateway-0")`)
	pose := func(t testing.TB, name string) {
		t.Helper()
		for _, look := range []struct {
			name  string
			width int
			dark  bool
		}{{"light", 1200, false}, {"dark", 1200, true}, {"narrow", 400, false}} {
			must(t, page.Look(ctx, look.width, 800, look.dark))
			must(t, page.Picture(ctx, filepath.Join(pictures(t), "ui-"+name+"-"+look.name+".png")))
		}
		must(t, page.Look(ctx, 1200, 800, false))
	}

	// The address is worth nothing now, nor is the port by another name.
	code := func(args ...string) string {
		return alice.cmd(append([]string{"curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...).must(t)
	}
	if got := code(address) + code(home+"/") + code("-H", "Host: podnet.example", address); got != "403403403" {
		t.Errorf("others are answered by %s", got)
	}

	t.Run("names", func(t *testing.T) {
		must(t, page.Go(ctx, home+"/names"))
		start := time.Now()
		alice.cmd("curl", "-sS", "--max-time", "5", "http://web.shop/blob?size=3M", "-o", "/dev/null").must(t)
		sees(t, `[...document.querySelectorAll("tbody tr")].some(r => r.innerText.includes("web.shop."))`)
		report(t, "dashboard, a question on the page after its request", time.Since(start).Round(10*time.Millisecond))
		for _, name := range []string{"db.shop", "stall.market", "nobody.shop"} {
			alice.cmd("curl", "-sS", "--max-time", "1", "http://"+name, "-o", "/dev/null").try(t)
		}
		sees(t, `document.body.innerText.includes("nobody.shop.") && document.body.innerText.includes("NXDOMAIN")`)
		pose(t, "names")
		want(t, alice.podnet("dns", "log").must(t), "web.shop. A", "the cluster", "nobody.shop. A  NXDOMAIN")
	})
	t.Run("services", func(t *testing.T) {
		must(t, page.Go(ctx, home+"/services?namespace=market"))
		sees(t, `document.querySelector('a[href="http://stall.market"]')`)
		must(t, page.Go(ctx, home+"/services?namespace=shop"))
		sees(t, `document.querySelector('a[href="http://web.shop"]')`)
		pose(t, "services")
	})
	t.Run("a steered request", func(t *testing.T) {
		must(t, page.Go(ctx, home+"/steering"))
		sees(t, `document.body.innerText.includes("deploy/stall")`)
		pose(t, "steering")
		must(t, page.Eval(ctx, `document.querySelector(".rule h2 a").click()`, nil))
		sees(t, `document.body.innerText.includes("They appear here as they come")`)
		send := func(method, path string) {
			node1.cmd("curl", "-sS", "--max-time", "5", "-X", method, "-H", "x-user: alice", "-d", "two apples", url+path).must(t)
		}
		start := time.Now()
		send("POST", "/cart?id=7")
		sees(t, `[...document.querySelectorAll("tbody tr")].some(r => r.innerText.includes("/cart?id=7"))`)
		report(t, "dashboard, a request on the page after it was sent", time.Since(start).Round(10*time.Millisecond))
		for _, r := range []string{"GET /cart", "PUT /cart/apples", "DELETE /cart/pears"} {
			method, path, _ := strings.Cut(r, " ")
			send(method, path)
		}
		sees(t, `document.querySelectorAll("details").length === 4 && [...document.querySelectorAll("summary")].every(s => s.innerText.includes("200"))`)

		// By keys alone: open the newest but three, and replay it.
		must(t, page.Eval(ctx, `[...document.querySelectorAll("summary")].find(s => s.innerText.includes("POST /cart?id=7")).focus()`, nil))
		must(t, page.Press(ctx, "Enter"))
		sees(t, `document.activeElement.parentElement.open && document.activeElement.parentElement.innerText.includes("two apples")`)
		for range 3 { // past what may be scrolled
			must(t, page.Press(ctx, "Tab"))
		}
		sees(t, `document.activeElement.innerText.startsWith("Replay to 3000")`)
		must(t, page.Press(ctx, "Enter"))
		sees(t, `document.querySelector(".flash")?.innerText.includes("sent once more") && document.querySelector("details[open]")?.innerText.includes("replay of")`)
		want(t, alice.podnet("steer", "inspect", "cart").must(t), "replay of ", "> POST /cart?id=7 HTTP/1.1")
		pose(t, "rule")
	})
	t.Run("overview", func(t *testing.T) {
		must(t, page.Go(ctx, home+"/"))
		alice.cmd("curl", "-sS", "--max-time", "20", "http://web.shop/blob?size=2M", "-o", "/dev/null").must(t)
		sees(t, `["rtt", "rx", "tx"].every(c => document.querySelector(".plot .stroke." + c).getAttribute("d").split("L").length > 8)`)
		pose(t, "overview")
	})
	t.Run("disconnect and connect", func(t *testing.T) {
		must(t, page.Eval(ctx, `document.querySelector('form[action="/do/disconnect"] button').focus()`, nil))
		must(t, page.Press(ctx, "Enter"))
		sees(t, `document.body.innerText.includes("Nothing is connected") && document.body.innerText.includes("Disconnected from")`)
		if r := alice.podnet("status").try(t); r.code != 3 {
			t.Errorf("status: exit %d\n%s", r.code, r.stdout)
		}
		pose(t, "nothing")
		must(t, page.Eval(ctx, `[...document.querySelectorAll('form[action="/do/connect"]')].find(f => f.parentElement.innerText.includes("current")).querySelector("button").focus()`, nil))
		start := time.Now()
		must(t, page.Press(ctx, "Enter"))
		sees(t, `document.querySelector(".pill")?.innerText.includes("Connected") && document.body.innerText.includes("Connected to")`)
		report(t, "dashboard, connected after the button", time.Since(start).Round(10*time.Millisecond))
		want(t, alice.podnet("status").must(t), "alice")
	})
	for _, c := range page.Complaints() {
		t.Errorf("the browser complains: %s", c)
	}

	// What somebody does elsewhere is on the page in a moment, too.
	alice.podnet("disconnect", "--all").must(t)
	took := eventually(t, 5*time.Second, "the page knows", func() error {
		var text string
		if err := page.Eval(ctx, `document.body.innerText`, &text); err != nil || !strings.Contains(text, "Nothing is connected") {
			return errors.Join(err, fmt.Errorf("it says %s", text))
		}
		return nil
	})
	report(t, "dashboard, a disconnect of the command line is on the page after", took.Round(10*time.Millisecond))
}
