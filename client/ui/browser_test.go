package ui

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/browser"
)

// pictures is where what a browser showed is kept, for whoever sets
// PODNET_E2E_PICTURES to a folder.
func pictures(t *testing.T) string {
	if dir := os.Getenv("PODNET_E2E_PICTURES"); dir != "" {
		return dir
	}
	return t.TempDir()
}

// chromium is one that the test may use, until it ends.
func chromium(t *testing.T) *browser.Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here: bin/lab build installs it")
	}
	b, err := browser.Start(exec.Command(path, browser.Arguments(t.TempDir())...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestInBrowser: the pages in a browser, wide and narrow, light and dark, by keys alone,
// and without scripts.
func TestInBrowser(t *testing.T) {
	b := chromium(t)
	f := shop(time.Now())
	w := newWorld(t, f, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := w.invite()
	page, err := b.Open(ctx, at)
	must(t, err)
	must(t, page.Until(ctx, `document.querySelector("h1")?.textContent === "Overview"`))
	base := strings.SplitAfterN(at, "/", 4)
	home := strings.TrimSuffix(strings.Join(base[:3], ""), "/")

	t.Run("every page", func(t *testing.T) {
		dir := pictures(t)
		for _, path := range everyPage {
			must(t, page.Go(ctx, home+path))
			must(t, page.Until(ctx, `document.documentElement.classList.contains("js")`))
			for _, look := range []struct {
				width int
				dark  bool
			}{{1200, false}, {1200, true}, {400, false}, {400, true}} {
				must(t, page.Look(ctx, look.width, 800, look.dark))
				var wide int
				must(t, page.Eval(ctx, `document.documentElement.scrollWidth`, &wide))
				if wide > look.width {
					t.Errorf("%s is %d wide in a window of %d", path, wide, look.width)
				}
				name, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "?")
				must(t, page.Picture(ctx, filepath.Join(dir, fmt.Sprintf("unit-%s-%d-%v.png", name, look.width, look.dark))))
			}
		}
	})
	t.Run("live", func(t *testing.T) {
		must(t, page.Look(ctx, 1000, 800, false))
		must(t, page.Go(ctx, home+"/rule?session=lab&rule=cart"))
		must(t, page.Eval(ctx, `(() => { const d = document.querySelector("details"); d.open = true; d.querySelector("button").focus(); window.sameRow = document.querySelector("tbody tr") })()`, nil))
		now := time.Now()
		f.change(func() {
			f.requests = append(append([]localapi.SteeredRequest{}, f.requests...), localapi.SteeredRequest{Time: now, Rule: "cart", Pod: "web-2", By: "laptop", Method: "PUT", Target: "/new", Status: 503})
			f.rules[0].Matched = 18
		})
		must(t, page.Until(ctx, `document.querySelector("tbody tr").textContent.includes("/new")`))
		var kept string
		must(t, page.Eval(ctx, `[document.querySelector("details").open, document.activeElement.textContent, window.sameRow.isConnected, window.sameRow === document.querySelectorAll("tbody tr")[1]].join()`, &kept))
		if kept != "true,Replay to 3000: POST /cart?id=7,true,true" {
			t.Errorf("what was open, what had the focus or a row that was there is another one now: %s", kept)
		}
		f.change(func() { f.requests = f.requests[1:] })
		must(t, page.Until(ctx, `!window.sameRow.isConnected && document.querySelectorAll("#h-requests ~ div tbody tr").length === 1`))
	})
	t.Run("hidden", func(t *testing.T) {
		hide := func(yes bool) {
			must(t, page.Eval(ctx, fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %v, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))`, yes), nil))
		}
		hide(true)
		f.change(func() { f.rules[0].Matched = 4711 })
		var seen bool
		must(t, page.Eval(ctx, `new Promise(r => setTimeout(() => r(document.body.innerText.includes("4711")), 1500))`, &seen))
		if seen {
			t.Error("a page that nobody sees is kept up to date")
		}
		hide(false)
		must(t, page.Until(ctx, `document.body.innerText.includes("4711")`))
	})
	t.Run("keys", func(t *testing.T) {
		must(t, page.Go(ctx, home+"/"))
		var walk []string
		for range 12 {
			must(t, page.Press(ctx, "Tab"))
			var at struct {
				Text  string
				Shown bool
			}
			must(t, page.Eval(ctx, `(() => { const e = document.activeElement, r = e.getBoundingClientRect();
				return {text: e.textContent.trim(), shown: r.width > 0 && r.top >= 0 && getComputedStyle(e).outlineStyle !== "none" && e.matches(":focus-visible")} })()`, &at))
			walk = append(walk, at.Text)
			if !at.Shown {
				t.Errorf("nothing shows that %q has the focus", at.Text)
			}
		}
		if got := strings.Join(walk[:6], ", "); got != "Skip to the content, podnet, Overview, Services, Names, Steering" {
			t.Errorf("the keys go to %s", got)
		}
		if got := walk[6]; got != "Disconnect lab" {
			t.Errorf("then to %s", got)
		}
		before := len(f.deeds())
		must(t, page.Eval(ctx, `document.querySelector(".acts button").focus()`, nil))
		must(t, page.Press(ctx, "Enter"))
		must(t, page.Until(ctx, `document.querySelector(".flash")?.textContent.includes("Disconnected from lab.") && document.activeElement.matches(".flash")`))
		if all := f.deeds(); len(all) != before+1 || all[before] != "POST /v1/disconnect?session=lab {}" {
			t.Errorf("asked for %q", all[before:])
		}
	})
	t.Run("no scripts", func(t *testing.T) {
		must(t, page.Scripts(ctx, false))
		defer func() { must(t, page.Scripts(ctx, true)) }()
		must(t, page.Go(ctx, home+"/services?session=lab"))
		var text string
		must(t, page.Eval(ctx, `document.body.innerText`, &text))
		if !strings.Contains(text, "10.96.0.20") || !strings.Contains(text, "Load the page again") || strings.Contains(text, "Copy") || strings.Contains(text, "Pause") {
			t.Errorf("it says\n%s", text)
		}
	})
	for _, c := range page.Complaints() {
		t.Errorf("the browser complains: %s", c)
	}
}
