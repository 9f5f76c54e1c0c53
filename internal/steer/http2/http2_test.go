package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"podnet.dev/internal/steer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachRequestIsDecided(t *testing.T) {
	w := newWorld(t, steals("ada"), steals("bob"))
	w.serve("app", says("from the pod"))
	w.serve("ada", says("from ada"))
	w.serve("bob", says("from bob"))
	c := w.client()
	for range 3 {
		for user, want := range map[string]string{"": "from the pod", "ada": "from ada", "bob": "from bob", "eve": "from the pod"} {
			if _, got := w.do(c, "GET", "/", nil, "X-User", user); got != want {
				t.Errorf("user %q: got %q, want %q", user, got, want)
			}
		}
	}
	if _, got := w.do(c, "GET", "/", nil, "X-User", "ada", "User-Agent", "kube-probe/1.37"); got != "from the pod" {
		t.Errorf("the kubelet got %q", got)
	}
	s := w.saw(func(s steer.Seen) bool { return s.Rule != nil && s.Rule.Owner == "ada" })
	if s.Status != 200 || s.Out != int64(len("from ada")) || s.Method != "GET" || s.Target != "/" || s.Host != w.addr || s.Err != nil {
		t.Errorf("seen: %+v", s)
	}
	if n := len(w.conns["ada"]); n != 1 {
		t.Errorf("%d connections to ada", n)
	}
}

// TestRulesComeAndGo on a connection that stays open.
func TestRulesComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.serve("app", says("from the pod"))
	w.serve("ada", says("from ada"))
	c := w.client()
	for range 3 {
		w.steer()
		if _, got := w.do(c, "GET", "/", nil, "X-User", "ada"); got != "from the pod" {
			t.Errorf("without a rule: %q", got)
		}
		for range 2 { // the second time the same, compiled anew
			w.steer(steals("ada"))
			if _, got := w.do(c, "GET", "/", nil, "X-User", "ada"); got != "from ada" {
				t.Errorf("with a rule: %q", got)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if a, l := len(w.conns["app"]), len(w.conns["ada"]); a != 1 || l != 1 {
		t.Errorf("%d connections to the app, %d to the laptop", a, l)
	}
}

// A name may come back with another rule, of another owner, while a connection that
// was made for the one before is open: it is not for the new one.
func TestNameComesBack(t *testing.T) {
	w := newWorld(t)
	w.serve("app", says("from the pod"))
	copied := make(chan string, 10)
	for _, name := range []string{"ada", "eve"} {
		w.serve(name, func(out http.ResponseWriter, r *http.Request) {
			if r.Header.Get(steer.Mirrored) != "" {
				copied <- name
				return
			}
			says("from "+name)(out, r)
		})
	}
	c := w.client()
	for n, owner := range []string{"eve", "ada", "eve"} {
		one, two := steals("ada"), mirrors("ada")
		one.Owner, one.Since = owner, time.Unix(int64(n), 0)
		two.Owner, two.Since = owner, one.Since
		w.steer(one, two)
		if _, got := w.do(c, "GET", "/mirror", nil, "X-User", "ada"); got != "from "+owner {
			t.Errorf("%s's rule: %q", owner, got)
		}
		if got := <-copied; got != owner {
			t.Errorf("the copy for %s went to %s", owner, got)
		}
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	w := newWorld(t, steals("ada"))
	for _, name := range []string{"app", "ada"} {
		w.serve(name, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-By", name)
			echo(rw, r)
		})
	}
	c := w.client()
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			by := "app"
			if i%3 == 0 {
				by = "ada"
			}
			body := bytes.Repeat([]byte{byte(i)}, i*3001)
			resp, got := w.do(c, "POST", "/", bytes.NewReader(body), "X-User", by)
			if got != string(body) || resp.Header.Get("X-By") != by {
				t.Errorf("%d: %d bytes by %s, want %d by %s", i, len(got), resp.Header.Get("X-By"), len(body), by)
			}
		})
	}
	all.Wait()
}

func TestTrailersAndInterim(t *testing.T) {
	w := newWorld(t, steals("ada"))
	for _, name := range []string{"app", "ada"} {
		w.serve(name, func(rw http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			rw.Header().Set("Link", "</a.css>")
			rw.WriteHeader(http.StatusEarlyHints)
			rw.Header().Set("Trailer", "Grpc-Status")
			rw.Header()["X-Twice"] = []string{"one", "two"}
			_, _ = rw.Write(b)
			rw.Header().Set("Grpc-Status", r.Trailer.Get("Sum"))
		})
		req, _ := http.NewRequest("POST", w.url("/"), io.NopCloser(bytes.NewReader([]byte("body"))))
		req.Trailer = http.Header{"Sum": {"7"}}
		req.Header.Set("X-User", name)
		resp, err := w.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(b) != "body" || resp.Trailer.Get("Grpc-Status") != "7" || len(resp.Header["X-Twice"]) != 2 {
			t.Errorf("%s: %q, %v, %v, %v", name, b, resp.Header, resp.Trailer, err)
		}
	}
}

func TestLargeBodiesThroughTinyWindows(t *testing.T) {
	w := newWorld(t, steals("ada"))
	tiny := http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 16, MaxReceiveBufferPerStream: 100, MaxReadFrameSize: 1 << 14}
	for _, name := range []string{"app", "ada"} {
		w.serveBy(name, tiny, echo)
		body := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
		if _, got := w.do(w.client(), "POST", "/", bytes.NewReader(body), "X-User", name); got != string(body) {
			t.Errorf("%s: %d bytes of %d", name, len(got), len(body))
		}
	}
}

func TestStalledStreamStallsNobody(t *testing.T) {
	w := newWorld(t, steals("ada"))
	release := make(chan struct{})
	defer close(release)
	h := func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stall" {
			<-release
			return
		}
		echo(rw, r)
	}
	// With Go's default a single stream may take the window of the connection.
	fair := http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 64 << 10}
	w.serveBy("app", fair, h)
	w.serveBy("ada", fair, h)
	c := w.client()
	ctx, cancel := context.WithCancel(t.Context())
	var stalled sync.WaitGroup
	defer stalled.Wait()
	defer cancel()
	for i := range 8 {
		stalled.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", w.url("/stall"), endless{})
			req.Header.Set("X-User", []string{"ada", "app"}[i%2])
			if resp, err := c.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // until their windows are full
	body := bytes.Repeat([]byte("x"), 1<<20)
	for _, name := range []string{"app", "ada"} {
		if _, got := w.do(c, "POST", "/", bytes.NewReader(body), "X-User", name); len(got) != len(body) {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A conversation, as gRPC has it: each side speaks when it has heard the other.
func TestBothDirectionsAtOnce(t *testing.T) {
	w := newWorld(t, steals("ada"))
	for _, name := range []string{"app", "ada"} {
		w.serve(name, func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			echo(rw, r)
		})
		body, say := io.Pipe()
		req, _ := http.NewRequest("POST", w.url("/"), body)
		req.Header.Set("X-User", name)
		resp, err := w.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			_, _ = io.WriteString(say, "hello")
			b := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "hello" {
				t.Fatalf("%s: %q, %v", name, b, err)
			}
		}
		_ = say.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		_ = resp.Body.Close()
	}
}

func TestCancelReachesWhoAnswers(t *testing.T) {
	w := newWorld(t, steals("ada"))
	ended := make(chan string, 2)
	for _, name := range []string{"app", "ada"} {
		w.serve(name, func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			ended <- name
		})
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", w.url("/"), nil)
		req.Header.Set("X-User", name)
		resp, err := w.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		_ = resp.Body.Close()
		select {
		case got := <-ended:
			if got != name {
				t.Errorf("%s ended, not %s", got, name)
			}
		case <-time.After(patience):
			t.Fatalf("%s never heard of it", name)
		}
	}
}

func TestResetReachesClient(t *testing.T) {
	w := newWorld(t, steals("ada"))
	for _, name := range []string{"app", "ada"} {
		w.serve(name, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = rw.Write([]byte("half"))
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		})
		req, _ := http.NewRequest("GET", w.url("/"), nil)
		req.Header.Set("X-User", name)
		resp, err := w.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var reset http2.StreamError
		if !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal || string(b) != "half" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestUnreachableLaptop(t *testing.T) {
	toApp := steals("cai")
	toApp.ToApp = true
	w := newWorld(t, steals("ada"), toApp)
	w.serve("app", echo)
	c := w.client()
	body := func() io.Reader { return bytes.NewReader(make([]byte, 200<<10)) }

	resp, text := w.do(c, "GET", "/", nil, "X-User", "ada")
	if resp.StatusCode != 502 || resp.Header.Get(steer.SteeredBy) != "ada" {
		t.Errorf("%d, %v, %q", resp.StatusCode, resp.Header, text)
	}
	resp, _ = w.do(c, "POST", "/p.S/M", body(), "X-User", "ada", "Content-Type", "application/grpc+proto")
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get(steer.SteeredBy) != "ada" {
		t.Errorf("gRPC: %d, %v", resp.StatusCode, resp.Header)
	}
	if _, text = w.do(c, "POST", "/", body(), "X-User", "cai"); len(text) != 200<<10 {
		t.Errorf("the app got %d bytes", len(text))
	}
	// A laptop that does not speak HTTP/2 is as good as none.
	w.raw("ada", func(nc net.Conn) { fmt.Fprint(nc, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	if resp, _ = w.do(c, "GET", "/", nil, "X-User", "ada"); resp.StatusCode != 502 {
		t.Errorf("no HTTP/2: %d", resp.StatusCode)
	}
}

func TestLaptopDiesInMidResponse(t *testing.T) {
	w := newWorld(t, steals("ada"))
	w.serve("app", says("from the pod"))
	w.serve("ada", func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write([]byte("half"))
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	c := w.client()
	req, _ := http.NewRequest("GET", w.url("/"), nil)
	req.Header.Set("X-User", "ada")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	_ = w.conns["ada"][0].Close()
	w.mu.Unlock()
	var reset http2.StreamError
	if _, err = io.ReadAll(resp.Body); !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal {
		t.Errorf("%v", err)
	}
	_ = resp.Body.Close()
	if _, got := w.do(c, "GET", "/", nil); got != "from the pod" {
		t.Errorf("got %q", got)
	}
}

func TestMirrorGetsCopies(t *testing.T) {
	w := newWorld(t, mirrors("ada"))
	w.serve("app", echo)
	got := make(chan string, 10)
	w.serve("ada", func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s %d %s", r.Method, r.URL, len(b), r.Header.Get(steer.Mirrored))
		_, _ = rw.Write(make([]byte, 300<<10)) // nobody reads it, and it is not in the way
	})
	c := w.client()
	if _, text := w.do(c, "POST", "/mirror?a=1", bytes.NewReader(make([]byte, 100000))); len(text) != 100000 {
		t.Errorf("%d bytes from the app", len(text))
	}
	select {
	case s := <-got:
		if s != "POST /mirror?a=1 100000 ada" {
			t.Errorf("the copy is %q", s)
		}
	case <-time.After(patience):
		t.Fatal("no copy")
	}
	if s := w.saw(func(s steer.Seen) bool { return s.Mirror }); s.Err != nil || s.Status != 200 || s.In != 100000 {
		t.Errorf("seen: %+v", s)
	}
}

func TestSlowMirrorCostsTheAppNothing(t *testing.T) {
	w := newWorld(t, mirrors("ada"))
	w.serve("app", echo)
	release := make(chan struct{})
	defer close(release)
	w.serve("ada", func(http.ResponseWriter, *http.Request) { <-release })
	c := w.client()
	for range 3 {
		if _, text := w.do(c, "POST", "/mirror", bytes.NewReader(make([]byte, 3<<20))); len(text) != 3<<20 {
			t.Errorf("%d bytes from the app", len(text))
		}
	}
	w.saw(func(s steer.Seen) bool { return s.Mirror && errors.Is(s.Err, errMirrorFull) })
}

func TestNotHTTP2IsTheAppsMatter(t *testing.T) {
	for _, bytes := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		http2.ClientPreface + "\x00\x00\x01\x04\x00\x00\x00\x00\x00x", // SETTINGS of one byte
		http2.ClientPreface + "GET / HTTP/1.1\r\n\r\n",
		"PRI * HT",
	} {
		w := newWorld(t, steals("ada"))
		w.raw("app", func(nc net.Conn) { _, _ = io.Copy(nc, nc) })
		nc, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(nc, bytes)
		closeWrite(nc)
		_ = nc.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(nc); err != nil || string(b) != bytes {
			t.Errorf("sent %q, back came %q, %v", bytes, b, err)
		}
		_ = nc.Close()
	}
}

// Where it is not HTTP/2, who breaks one connection breaks the other.
func TestNotHTTP2IsBrokenOff(t *testing.T) {
	for _, bytes := range []string{"PRI * HT", http2.ClientPreface + "\x00\x00\x06\x04", http2.ClientPreface + "GET / HTTP/1.1\r\n"} {
		for _, byClient := range []bool{true, false} {
			heard := make(chan error, 1)
			w := newWorld(t, steals("ada"))
			breaks := func(nc net.Conn) {
				_ = nc.(*net.TCPConn).SetLinger(0)
				_ = nc.Close()
			}
			w.raw("app", func(nc net.Conn) {
				b := make([]byte, len(bytes))
				if _, err := io.ReadFull(nc, b); err != nil || string(b) != bytes {
					t.Errorf("the app got %q, %v", b, err)
				}
				if !byClient {
					breaks(nc)
					return
				}
				_, err := nc.Read(b)
				heard <- err
			})
			nc, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(nc, bytes)
			if byClient {
				breaks(nc)
			} else {
				_, err := nc.Read(make([]byte, 1))
				heard <- err
				_ = nc.Close()
			}
			if err := <-heard; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%q, broken by the client %t: the other heard %v", bytes, byClient, err)
			}
		}
	}
}

// An app that answers the preface by HTTP/1.1 gets it again, on a connection that
// is the client's alone, and the client sees what it says.
func TestAppWithoutHTTP2(t *testing.T) {
	w := newWorld(t, steals("ada"))
	w.raw("app", func(nc net.Conn) {
		b := make([]byte, len(http2.ClientPreface))
		_, _ = io.ReadFull(nc, b)
		_, _ = io.WriteString(nc, "HTTP/1.1 505 No\r\n\r\n")
		closeWrite(nc)
		_, _ = io.Copy(io.Discard, nc)
	})
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	_ = nc.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(nc)
	if err != nil || string(b) != "HTTP/1.1 505 No\r\n\r\n" {
		t.Errorf("%q, %v", b, err)
	}
}
