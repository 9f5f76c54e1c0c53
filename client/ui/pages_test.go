package ui

import (
	"bufio"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// everyPage is each page with a query that shows something.
var everyPage = []string{"/", "/services?session=lab", "/names?session=lab", "/steering?session=lab", "/rule?session=lab&rule=cart"}

// TestPagesShowWhatThereIs, whole and without a script.
func TestPagesShowWhatThereIs(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	b := w.enter()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(b.get("/"), "What happened") || strings.Contains(b.get("/"), "<b>no answer</b>"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) { // the daemon is asked from the moment when the port is opened
			t.Fatal("nothing has been heard of the sessions")
		}
	}
	for path, wants := range map[string][]string{
		"/": {"podnet-gateway-0", "203.0.113.7:31820", "11.4 ms", "/etc/resolv.conf was overwritten", "Hint: podnet doctor", "10.96.0.0/12", "42 min 0 s",
			"staging", "https://203.0.113.9:6443", "everything", ">primary<", "What happened", "path udp 203.0.113.7:31820", `role="img" aria-label="Round trip, last 20 s: now`},
		"/services?session=lab":       {`href="http://web.shop"`, "10.96.0.20", ".shop<", "<option selected>shop</option><option>pay</option>"},
		"/services?session=lab&q=WE":  {"10.96.0.20"},
		"/names?session=lab":          {"web.shop.", "10.96.0.20", "the cluster", "NXDOMAIN", "this machine&#39;s resolver", "3.1 ms"},
		"/names?session=lab&q=nobody": {"None that was looked for."},
		"/steering?session=lab":       {"deploy/web", "port 8080", "<b>3000</b>", "<b>17</b> taken", "802", ">ready<", "/rule?rule=cart"},
		"/rule?session=lab&rule=cart": {"POST /cart?id=7", "200 OK", "two apples", "fine", "Replay to 3000", "12 ms", "web-1"},
		"/rule?session=lab&rule=gone": {"there is no rule gone any more"},
		"/services?session=gone":      {"10.96.0.20"}, // the primary's
	} {
		body := b.get(path)
		for _, want := range append(wants, `<main id="main"`, "<h1>", `<html lang="en">`, `aria-current="page"`, "Connected</p>") {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%s", path, want, body)
			}
		}
	}
	if body := b.get("/services?session=lab&q=WE"); strings.Contains(body, "5432") {
		t.Error("what was not looked for is shown")
	}
	if code, _ := b.do("GET", "/none", nil, nil); code != 404 {
		t.Errorf("a page that there is not: %d", code)
	}
}

// TestNothingConnected is a page like any other.
func TestNothingConnected(t *testing.T) {
	w := newWorld(t, &fakeDaemon{status: localapi.NewStatus(), more: make(chan struct{})}, 0)
	b := w.enter()
	for _, path := range everyPage {
		if body := b.get(path); !strings.Contains(body, "Disconnected</p>") || path != "/rule?session=lab&rule=cart" && !strings.Contains(body, "Nothing is connected") {
			t.Errorf("%s:\n%s", path, body)
		}
	}
	if body := b.get("/"); !strings.Contains(body, "Connect<") {
		t.Error("and nothing to connect to")
	}
}

// TestHostileNamesAreText: whoever names a Service, a header or a session.
func TestHostileNamesAreText(t *testing.T) {
	f := shop(time.Now())
	f.rules[0].Target, f.rules[0].Pods[0].Text = "deploy/"+hostile, hostile
	f.status.Warnings = append(f.status.Warnings, localapi.Warning{Text: hostile, Hint: hostile, Severity: `high"><script>`})
	f.status.LastError = &localapi.Error{Message: hostile, Hint: hostile}
	w := newWorld(t, f, 0)
	b := w.enter()
	for _, path := range append(everyPage, "/rule?session=lab&rule="+url.QueryEscape(hostile), "/services?q="+url.QueryEscape(`"><script>`), "/names?session="+url.QueryEscape(hostile)) {
		body := b.get(path)
		if strings.Count(body, "<script") != 1 || strings.Contains(body, `"javascript:`) || strings.Contains(body, `="high">`) || !strings.Contains(body, "alert(") {
			t.Errorf("%s: %d scripts in\n%s", path, strings.Count(body, "<script"), body)
		}
	}
}

// nextEvent reads the next event of a stream.
func nextEvent(t *testing.T, s *bufio.Reader) string {
	t.Helper()
	for {
		text, err := s.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(text, "data: "); ok {
			var html string
			if err := json.Unmarshal([]byte(data), &html); err != nil {
				t.Fatal(err)
			}
			return html
		}
	}
}

// TestPagesAreLive: a new request is on the page in a moment, and a page that is as it
// was is not sent again.
func TestPagesAreLive(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	b := w.enter()
	resp, err := b.http.Get(b.base + "/live?" + url.Values{"path": {"/names"}, "query": {"session=lab"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("it is %s", got)
	}
	stream := bufio.NewReader(resp.Body)
	if html := nextEvent(t, stream); !strings.Contains(html, "web.shop.") || strings.Contains(html, "<html") || strings.Contains(html, "new.shop.") {
		t.Errorf("the first: %s", html)
	}
	time.Sleep(1500 * time.Millisecond) // in which the page is looked at again, and is the same
	start := time.Now()
	w.daemon.change(func() {
		w.daemon.queries = append(slices.Clone(w.daemon.queries), localapi.DNSQuery{Seq: 3, Time: start, DNSAnswer: localapi.DNSAnswer{Name: "new.shop.", Type: "A", Rcode: "NXDOMAIN"}})
	})
	html := nextEvent(t, stream)
	if !strings.Contains(html, `id="q-3"`) || strings.Index(html, `id="q-3"`) > strings.Index(html, `id="q-1"`) {
		t.Errorf("the second: %s", html)
	}
	t.Logf("on the page after %v", time.Since(start).Round(time.Millisecond))
	if code, _ := b.do("GET", "/live?path=/none", nil, nil); code != 404 {
		t.Errorf("a page that there is not: %d", code)
	}
}

// TestButtons: what each asks the daemon for, and what the page says of it, once.
func TestButtons(t *testing.T) {
	f := shop(time.Now())
	w := newWorld(t, f, 0)
	b := w.enter()
	at, in := time.Unix(1000, 0).UTC().Format(time.RFC3339Nano), time.Unix(1000, 5).UTC().Format(time.RFC3339Nano)
	for _, c := range []struct {
		page, deed string
		form       url.Values
		asks, says string
	}{
		{"/", "disconnect", url.Values{"session": {"lab"}}, "POST /v1/disconnect?session=lab {}", "Disconnected from lab."},
		{"/", "primary", url.Values{"session": {hostile}}, "POST /v1/primary " + jsonOf(localapi.PrimaryRequest{Name: hostile}), "Short names are those of &lt;script"},
		{"/", "connect", url.Values{"context": {"staging"}}, "POST /v1/connect " + jsonOf(localapi.ConnectRequest{Kube: localapi.Kube{Flags: map[string][]string{"context": {"staging"}}, Env: []string{"KUBECONFIG=/k"}}}), "Connected to staging."},
		{"/", "profile", url.Values{"profile": {"everything"}}, "POST /v1/connect " + jsonOf(localapi.Profile{Name: "everything", Connect: localapi.Words{Context: "blue", AllNamespaces: true}}.Request([]string{"KUBECONFIG=/k"})), "Connected by everything."},
		{"/steering", "stop", url.Values{"session": {"lab"}, "rule": {"cart"}}, "DELETE /v1/steer/cart?session=lab", "cart steers no more."},
		{"/rule?session=lab&rule=cart", "replay", url.Values{"session": {"lab"}, "rule": {"cart"}, "connection": {at}, "exchange": {in}},
			"POST /v1/steer/cart/replay?session=lab " + jsonOf(localapi.ReplayRequest{Connection: time.Unix(1000, 0).UTC(), Exchange: time.Unix(1000, 5).UTC()}), "sent once more"},
	} {
		before := len(f.deeds())
		code, body := b.press(c.page, c.deed, c.form)
		if all := f.deeds(); code != 200 || len(all) != before+1 || all[before] != c.asks {
			t.Errorf("%s: %d, asked for %q, want %q", c.deed, code, all[before:], c.asks)
		}
		if !strings.Contains(body, c.says) || !strings.Contains(body, `role="status" tabindex="-1" autofocus`) {
			t.Errorf("%s: no %q in\n%s", c.deed, c.says, body)
		}
		if strings.Contains(b.get("/"), c.says) {
			t.Errorf("%s: it is said twice", c.deed)
		}
	}
	if !strings.Contains(b.get("/rule?session=lab&rule=cart"), `name="connection" value="`+time.Unix(1000, 0).Format(time.RFC3339Nano)) {
		t.Error("the page's own button is about another connection")
	}
	f.fail = &localapi.Error{Code: "forbidden", Message: "you may not", Hint: "ask " + hostile, Status: 403}
	if code, body := b.press("/", "disconnect", url.Values{"session": {"lab"}}); code != 200 || !strings.Contains(body, `role="alert"`) || !strings.Contains(body, "you may not") || !strings.Contains(body, "Hint: ask &lt;script") {
		t.Errorf("a failure: %d: %s", code, body)
	}
	for deed, form := range map[string]url.Values{"replay": {"rule": {"cart"}}, "profile": {"profile": {"none"}}} {
		before := len(f.deeds())
		if _, body := b.press("/", deed, form); !strings.Contains(body, `role="alert"`) || len(f.deeds()) != before {
			t.Errorf("%s without what it needs: %q", deed, f.deeds()[before:])
		}
	}
	if code, _ := b.press("/", "nothing", url.Values{}); code != 404 {
		t.Errorf("a button that there is not: %d", code)
	}
}
