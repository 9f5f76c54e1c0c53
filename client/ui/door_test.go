package ui

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// TestAddressIsGoodOnce: the first browser is let in and stays in; the second is not,
// and learns nothing but how to get an address of its own.
func TestAddressIsGoodOnce(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	if w.board.Wanted() {
		t.Error("it is wanted before anybody asked")
	}
	first, second := w.stranger(), w.stranger()
	if !w.board.Wanted() {
		t.Error("it is not wanted, and listens")
	}
	path := strings.TrimPrefix(w.invite(), first.base)
	if code, body := first.do("GET", path, nil, nil); code != 200 || !strings.Contains(body, `url=/"`) {
		t.Errorf("%d: %s", code, body)
	}
	if !strings.Contains(first.get("/"), "podnet-gateway-0") {
		t.Error("the first sees nothing")
	}
	code, body := second.do("GET", path, nil, nil)
	if code != 403 || !strings.Contains(body, "podnet ui") {
		t.Errorf("the second: %d: %s", code, body)
	}
	for _, p := range []string{"/", "/services", "/names", "/steering", "/rule?rule=cart", "/live?path=/", "/static/app.js", "/static/app.css", "/none"} {
		if code, body := second.do("GET", p, nil, nil); code != 403 || strings.Contains(body, "lab") {
			t.Errorf("%s: the second gets %d: %s", p, code, body)
		}
	}
	if code, _ := second.do("POST", "/do/disconnect", url.Values{"session": {"lab"}}, nil); code != 403 || len(w.daemon.deeds()) > 0 {
		t.Errorf("the second's button: %d, %q", code, w.daemon.deeds())
	}
	// The browser that was let in may load the address again, as browsers do.
	if code, _ := first.do("GET", path, nil, nil); code != 200 {
		t.Errorf("the first, once more: %d", code)
	}
	if code, _ := second.do("GET", "/open/guess", nil, nil); code != 403 {
		t.Errorf("a guess: %d", code)
	}
}

func TestAddressIsGoodForAMinute(t *testing.T) {
	d := newDoor("127.0.0.1:1")
	now := time.Now()
	token := func() string {
		u := d.invite(localapi.Kube{}, now)
		return u.URL[strings.LastIndexByte(u.URL, '/')+1:]
	}
	late, soon := token(), token()
	if _, ok := d.enter(late, now.Add(tokenTime+time.Second)); ok {
		t.Error("after its time")
	}
	if _, ok := d.enter(soon, now.Add(tokenTime-time.Second)); !ok {
		t.Error("not within its time")
	}
	for range 2 * maxVisits {
		d.enter(token(), now)
	}
	if len(d.visits) > maxVisits {
		t.Errorf("%d browsers", len(d.visits))
	}
}

// TestOthersAreKeptOut: with the cookie, but from elsewhere.
func TestOthersAreKeptOut(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	b := w.enter()
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for what, edit := range map[string]func(*http.Request){
		"another name for this address": func(r *http.Request) { r.Host = "podnet.example" },
		"another port in the Host":      func(r *http.Request) { r.Host = strings.Split(r.URL.Host, ":")[0] + ":1" },
		"another site's script":         set("Origin", "http://evil.example"),
		"a page at another port":        set("Sec-Fetch-Site", "same-site"),
		"another site's picture":        set("Sec-Fetch-Site", "cross-site"),
		"a sandboxed frame":             set("Origin", "null"),
	} {
		for _, path := range []string{"/", "/live?path=/", "/static/app.js"} {
			if code, body := b.do("GET", path, nil, edit); code != 403 || strings.Contains(body, "lab") {
				t.Errorf("%s gets %s: %d", what, path, code)
			}
		}
	}
	csrf := csrfField.FindStringSubmatch(b.get("/"))[1]
	form := url.Values{"session": {"lab"}, "csrf": {csrf}}
	for what, try := range map[string]func() (int, string){
		"no Origin": func() (int, string) {
			return b.do("POST", "/do/disconnect", form, func(r *http.Request) { r.Header.Del("Origin") })
		},
		"another's Origin": func() (int, string) {
			return b.do("POST", "/do/disconnect", form, set("Origin", "http://evil.example"))
		},
		"no token":           func() (int, string) { return b.do("POST", "/do/disconnect", url.Values{"session": {"lab"}}, nil) },
		"another's token":    func() (int, string) { return b.do("POST", "/do/disconnect", url.Values{"csrf": {"x"}}, nil) },
		"the token in a URL": func() (int, string) { return b.do("POST", "/do/disconnect?csrf="+csrf, url.Values{}, nil) },
		"another method":     func() (int, string) { return b.do("PUT", "/do/disconnect", form, set("Origin", b.base)) },
		"without a cookie": func() (int, string) {
			return w.stranger().do("POST", "/do/disconnect", form, set("Origin", b.base))
		},
		"a form without end": func() (int, string) {
			return b.do("POST", "/do/disconnect", url.Values{"csrf": {csrf}, "x": {strings.Repeat("x", 20<<10)}}, nil)
		},
	} {
		if code, _ := try(); code != 403 || len(w.daemon.deeds()) > 0 {
			t.Errorf("%s: %d, %q", what, code, w.daemon.deeds())
		}
	}
	if code, _ := b.do("POST", "/do/disconnect", form, nil); code != 200 || len(w.daemon.deeds()) != 1 {
		t.Errorf("the button itself: %d, %q", code, w.daemon.deeds())
	}
}

// TestConnectionsAreBounded: somebody who is not let in may have as many connections as
// there can be, and no more.
func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	b := w.enter()
	b.http.CloseIdleConnections()
	var open []net.Conn
	refused := func() error {
		c, err := net.Dial("tcp", strings.TrimPrefix(b.base, "http://"))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		open = append(open, c)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n"); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		return err
	}
	for range maxConns {
		if err := refused(); err != nil {
			t.Fatal(err)
		}
	}
	page := make(chan int, 1)
	go func() {
		code, _ := b.do("GET", "/", nil, nil)
		page <- code
	}()
	select {
	case <-page:
		t.Error("there is room for more")
	case <-time.After(100 * time.Millisecond):
	}
	_ = open[0].Close()
	if code := <-page; code != 200 {
		t.Errorf("once one has gone: %d", code)
	}
}

// TestHeaders: what a browser is told about the pages, and about the cookie.
func TestHeaders(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 0)
	b := w.stranger()
	resp, err := b.http.Get(w.invite())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c := resp.Cookies()
	if len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Domain != "" || len(c[0].Value) < 40 {
		t.Errorf("cookies %v", c)
	}
	if resp, err = b.http.Get(b.base + "/"); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"} {
		if got := resp.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if host := strings.Split(strings.TrimPrefix(b.base, "http://"), ":")[0]; !strings.HasPrefix(host, "127.") {
		t.Errorf("it listens on %s", host)
	}
}

// TestPortIsClosed when nobody has a page open any more, and another is opened.
func TestPortIsClosed(t *testing.T) {
	w := newWorld(t, shop(time.Now()), 1500*time.Millisecond)
	b := w.enter()
	r, err := http.NewRequestWithContext(t.Context(), "GET", b.base+"/live?path=/", nil)
	if err != nil {
		t.Fatal(err)
	}
	open, err := b.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond) // longer than it waits for somebody
	if !w.board.Wanted() {
		t.Error("it is closed though a page is open")
	}
	open.Body.Close()
	for end := time.Now().Add(20 * time.Second); w.board.Wanted(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it listens for ever")
		}
	}
	if _, err := b.http.Get(b.base + "/"); err == nil {
		t.Error("somebody answers")
	}
	if again := w.enter(); again.base == b.base {
		t.Error("the same port again")
	}
}
