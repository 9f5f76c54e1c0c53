package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

const patience = 10 * time.Second

// world is a pod with its agent on the loopback: an app, and the laptops of some
// people, each a real HTTP/2 server.
type world struct {
	t       *testing.T
	addr    string
	port    atomic.Pointer[steer.Port]
	mu      sync.Mutex
	servers map[string]string // "app" or an owner: address
	conns   map[string][]net.Conn
	seen    []steer.Seen
	served  sync.WaitGroup
	cancel  context.CancelFunc
}

func (w *world) App(ctx context.Context) (net.Conn, error) { return w.dial(ctx, "app") }

func (w *world) Laptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	return w.dial(ctx, r.Owner)
}

func (w *world) dial(ctx context.Context, name string) (net.Conn, error) {
	w.mu.Lock()
	addr := w.servers[name]
	w.mu.Unlock()
	if addr == "" {
		return nil, errors.New("unreachable")
	}
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		w.mu.Lock()
		w.conns[name] = append(w.conns[name], nc)
		w.mu.Unlock()
	}
	return nc, err
}

func (w *world) Seen(s steer.Seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
}

// saw waits for something that the observer was told.
func (w *world) saw(want func(steer.Seen) bool) steer.Seen {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		for _, s := range w.seen {
			if want(s) {
				w.mu.Unlock()
				return s
			}
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Fatalf("the observer was not told: %+v", w.seen)
	return steer.Seen{}
}

// steer makes these the rules, and no others.
func (w *world) steer(rules ...steer.Rule) {
	w.t.Helper()
	for i := range rules {
		rules[i].Protocol, rules[i].Port = steer.TCP, 8080
	}
	set, err := steer.Compile(rules)
	if err != nil {
		w.t.Fatal(err)
	}
	w.port.Store(set.Port(steer.TCP, 8080))
}

// newWorld has the agent steer by rules.
func newWorld(t *testing.T, rules ...steer.Rule) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{t: t, servers: make(map[string]string), conns: make(map[string][]net.Conn), cancel: cancel}
	w.steer(append(rules, steals("nobody"))...)
	l := listen(t)
	w.addr = l.Addr().String()
	w.served.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			w.served.Go(func() {
				if err := Serve(ctx, nc, nil, w.port.Load, w, w); err != nil {
					t.Logf("serve: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		w.served.Wait()
	})
	return w
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// raw runs serve for each connection to a server.
func (w *world) raw(name string, serve func(net.Conn)) {
	l := listen(w.t)
	w.mu.Lock()
	w.servers[name] = l.Addr().String()
	w.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				serve(nc)
			})
		}
	})
	w.t.Cleanup(func() {
		w.cancel()
		_ = l.Close()
		all.Wait()
	})
}

// plain is HTTP/2 without TLS, with prior knowledge.
func plain() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// serve runs a real HTTP/2 server.
func (w *world) serve(name string, h http.HandlerFunc) {
	w.serveBy(name, http.HTTP2Config{}, h)
}

func (w *world) serveBy(name string, config http.HTTP2Config, h http.HandlerFunc) {
	l := listen(w.t)
	w.mu.Lock()
	w.servers[name] = l.Addr().String()
	w.mu.Unlock()
	server := &http.Server{Handler: h, Protocols: plain(), HTTP2: &config}
	w.served.Go(func() { _ = server.Serve(l) })
	w.t.Cleanup(func() {
		w.cancel()
		_ = server.Close()
	})
}

// client returns a real HTTP/2 client of the pod.
func (w *world) client() *http.Client {
	tr := &http.Transport{Protocols: plain(), DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func (w *world) url(path string) string { return "http://" + w.addr + path }

// do makes a request with headers given in pairs, and returns the response and
// its body.
func (w *world) do(c *http.Client, method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url(path), body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(b)
}

// says answers with a text.
func says(text string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, text) }
}

// echo sends the body back as it comes.
func echo(rw http.ResponseWriter, r *http.Request) {
	b := make([]byte, 8<<10)
	for {
		n, err := r.Body.Read(b)
		_, _ = rw.Write(b[:n])
		_ = http.NewResponseController(rw).Flush()
		if err != nil {
			return
		}
	}
}

// steals is a rule that steals requests with the owner's name in x-user.
func steals(owner string) steer.Rule {
	return steer.Rule{Name: owner + "-steals", Owner: owner, Mode: steer.Steal,
		Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: owner}}}}}
}

func mirrors(owner string) steer.Rule {
	return steer.Rule{Name: owner + "-mirrors", Owner: owner, Mode: steer.Mirror,
		Matches: []steer.Match{{Path: "/mirror*"}}}
}
