package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

// town is a pod's port that is steered, with its app and its laptops, each on a
// loopback address.
type town struct {
	t       *testing.T
	addr    string // where clients connect to
	app     string
	port    atomic.Pointer[steer.Port]
	laptops map[string]string // by owner
	cancel  context.CancelFunc

	mu     sync.Mutex
	seen   []steer.Seen
	errs   []error // of Serve
	dialed map[string]int
}

var errNoLaptop = errors.New("no such laptop")

func (w *town) App(ctx context.Context) (net.Conn, error) { return w.dial(ctx, "app", w.app) }

func (w *town) Laptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	return w.dial(ctx, r.Owner, w.laptops[r.Owner])
}

func (w *town) dial(ctx context.Context, who, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed[who]++
	w.mu.Unlock()
	switch addr {
	case "":
		return nil, errNoLaptop
	case "silence":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (w *town) dials(who string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed[who]
}

func (w *town) Seen(s steer.Seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
}

// until waits for something that was seen.
func (w *town) until(what string, ok func(steer.Seen) bool) steer.Seen {
	w.t.Helper()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		for _, s := range w.seen {
			if ok(s) {
				w.mu.Unlock()
				return s
			}
		}
		w.mu.Unlock()
	}
	w.t.Fatalf("%s: not seen: %+v", what, w.seen)
	return steer.Seen{}
}

// steer makes these the rules, and no others.
func (w *town) steer(rules ...steer.Rule) {
	w.t.Helper()
	set, err := steer.Compile(rules)
	if err != nil {
		w.t.Fatal(err)
	}
	w.port.Store(set.Port(steer.TCP, 8080))
}

// newTown steers to app, an address, by rules.
func newTown(t *testing.T, app string, rules ...steer.Rule) *town {
	t.Helper()
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := &town{
		t: t, addr: l.Addr().String(), app: app, cancel: cancel,
		laptops: map[string]string{}, dialed: map[string]int{},
	}
	w.steer(rules...)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				err := Serve(ctx, conn, nil, w.port.Load, w, w)
				w.mu.Lock()
				w.errs = append(w.errs, err)
				w.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		conns.Wait()
	})
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveHTTP runs net/http's server.
func serveHTTP(t *testing.T, h http.HandlerFunc) string {
	l := listen(t)
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// serveRaw gives each connection to f and closes it behind f.
func serveRaw(t *testing.T, f func(*net.TCPConn)) string {
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				f(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.RequestURI, body)
	}
}

// steal is ada's rule for requests with "x-user: ada".
func steal() steer.Rule {
	return steer.Rule{
		Name: "ada-cart", Owner: "ada", Protocol: steer.TCP, Port: 8080, Mode: steer.Steal,
		Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: "ada"}}}},
	}
}

const forAda = "x-user: ada\r\n"

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// client is a keep-alive connection.
type client struct {
	t *testing.T
	*net.TCPConn
	r *bufio.Reader
}

func (w *town) client() *client {
	conn := dial(w.t, w.addr)
	return &client{w.t, conn, bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// want reads a response and its body.
func (c *client) want(status int, body string) *http.Response {
	c.t.Helper()
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("for %q: %v", body, err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != status || strings.TrimSpace(string(b)) != body {
		c.t.Fatalf("%d %q, want %d %q; %v", r.StatusCode, b, status, body, err)
	}
	return r
}

func (c *client) wantEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		c.t.Fatalf("%q, %v; want the end", b, err)
	}
}

func get(path, fields string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: cart\r\n" + fields + "\r\n"
}

func post(path, fields, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: cart\r\n%sContent-Length: %d\r\n\r\n%s", path, fields, len(body), body)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
