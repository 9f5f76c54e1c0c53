package http1

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

// copies is bob's rule for a copy of everything.
func copies() steer.Rule {
	return steer.Rule{
		Name: "bob-cart", Owner: "bob", Protocol: steer.TCP, Port: 8080, Mode: steer.Mirror,
		Matches: []steer.Match{{Path: "*"}},
	}
}

func TestMirror(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal(), copies())
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	got := make(chan string, 10)
	w.laptops["bob"] = serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Method + r.URL.Path + string(b) + r.Header.Get(steer.Mirrored)
		if r.URL.Path == "/2" {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(418)
	})
	c := w.client()
	large := strings.Repeat("x", 100_000)
	c.send(get("/1", "") + post("/2", "", "abc") + post("/3", forAda, large))
	c.want(200, "app GET /1")
	c.want(200, "app POST /2 abc")
	c.want(200, "ada POST /3 "+large)
	c.Close() // copies may come after that
	for _, want := range []string{"GET/1bob", "POST/2abcbob", "POST/3" + large + "bob"} {
		if s := <-got; s != want {
			t.Errorf("%.30s, want %.30s", s, want)
		}
	}
	s := w.until("the copy", func(s steer.Seen) bool { return s.Mirror && s.Target == "/3" })
	if s.Rule.Owner != "bob" || s.Status != 418 || s.Err != nil || s.In < 100_000 {
		t.Errorf("seen %+v", s)
	}
}

// A laptop that takes no copies costs the app nothing.
func TestSlowMirror(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), copies())
	stop := make(chan struct{})
	w.laptops["bob"] = serveRaw(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		<-stop
	})
	defer close(stop)
	c := w.client()
	body := strings.Repeat("x", 1<<20)
	for range 12 {
		c.send(post("/", "", body))
		c.want(200, "app POST / "+body)
	}
	s := w.until("the drop", func(s steer.Seen) bool { return s.Mirror && s.Err != nil })
	if s.Err != errSlowMirror {
		t.Errorf("seen %+v", s)
	}
}

func TestMirrorThatIsNotThere(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), copies())
	c := w.client()
	c.send(get("/1", "") + get("/2", ""))
	c.want(200, "app GET /1")
	c.want(200, "app GET /2")
	for _, path := range []string{"/1", "/2"} {
		w.until("the copy", func(s steer.Seen) bool { return s.Mirror && s.Target == path && s.Err != nil })
		w.until("the request", func(s steer.Seen) bool { return !s.Mirror && s.Target == path && s.Status == 200 })
	}
}

// A copy that nobody answers does not keep a connection's goroutines for ever.
func TestMirrorEnds(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), copies())
	w.laptops["bob"] = serveRaw(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	c := w.client()
	c.send(get("/", ""))
	c.want(200, "app GET /")
	c.Close()
	time.Sleep(50 * time.Millisecond)
	w.cancel()
	w.until("the copy", func(s steer.Seen) bool { return s.Mirror && s.Err != nil })
}

// A laptop that ends its connection behind a response, and did not say so, gets
// the next copy on another one.
func TestMirrorThatHangsUp(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), copies())
	got := make(chan string, 1)
	w.laptops["bob"] = serveRaw(t, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.WriteString(c, ok)
		got <- r.URL.Path
	})
	c := w.client()
	for _, path := range []string{"/1", "/2", "/3"} {
		c.send(get(path, ""))
		c.want(200, "app GET "+path)
		s := w.until("the copy", func(s steer.Seen) bool { return s.Mirror && s.Target == path })
		for s.Err != nil { // it was on its way as the laptop hung up
			c.send(get(path, ""))
			c.want(200, "app GET "+path)
			s = w.until("one more copy", func(later steer.Seen) bool { return later.Mirror && later.Began.After(s.Began) })
		}
		if p := <-got; p != path {
			t.Errorf("%s, want %s", p, path)
		}
	}
	if n := w.dials("bob"); n < 3 {
		t.Errorf("%d connections", n)
	}
}
