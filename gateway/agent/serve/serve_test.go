package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/steer"
)

func TestWholePortGoesToLaptop(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), steal())
	p.laptopAt("ada", serveTCP(t, named("ada")).String())
	addr := p.listen(steer.TCP)
	if got, err := tell(t, addr, "hello"); got != "ada: hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	s := p.until("stolen", func(s steer.Seen) bool { return s.Rule != nil && s.Err == nil })
	if s.Rule.Name != "ada-1" || s.In != 5 || s.Out != 10 || s.Began.IsZero() {
		t.Errorf("%+v", s)
	}
	p.steer()
	if got, err := tell(t, addr, "hello"); got != "app: hello" || err != nil {
		t.Errorf("without rules: %q, %v", got, err)
	}
}

func TestLaptopLearnsClient(t *testing.T) {
	r := steal()
	r.ClientAddress = steer.ClientByProxy
	p := newPod(t, serveTCP(t, named("app")), r)
	p.laptopAt("ada", serveTCP(t, named("ada")).String())
	client := dial(t, p.listen(steer.TCP))
	io.WriteString(client, "hello")
	client.CloseWrite()
	header := steer.AppendProxyHeader(nil, client.LocalAddr(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(p.port)})
	if got, err := io.ReadAll(client); string(got) != "ada: "+string(header)+"hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// What is nobody's passes byte for byte, whatever the port's rules are about.
func TestPassIsExact(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), requests())
	addr := p.listen(steer.TCP)
	for _, text := range []string{"\x16\x03\x01\x00\x05\x01 a hello of TLS", "QUIT\r\n", "\x00\xff", "G", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", strings.Repeat("long ", 1<<18)} {
		if got, err := tell(t, addr, text); got != "app: "+text || err != nil {
			t.Errorf("%.20q: %.30q (%d), %v", text, got, len(got), err)
		}
	}
	p.until("passed", func(s steer.Seen) bool { return s.Rule == nil && s.In == 2 && s.Out == 7 })
	if p.dials("ada") > 0 {
		t.Error("the laptop was asked")
	}
}

// In many protocols the server speaks first. Nobody waits until it is clear that
// the client will not.
func TestServerSpeaksFirst(t *testing.T) {
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "220 app\n")
		io.Copy(c, c)
	}), requests())
	conn := dial(t, p.listen(steer.TCP))
	began := time.Now()
	r := bufio.NewReader(conn)
	if got, err := r.ReadString('\n'); got != "220 app\n" || err != nil || time.Since(began) >= steer.SniffTime {
		t.Errorf("%q, %v after %s", got, err, time.Since(began))
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\n\n")
	if got, err := r.ReadString('\n'); got != "GET / HTTP/1.1\r\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSilentClientIsTheApps(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for steer.SniffTime")
	}
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }), requests())
	conn := dial(t, p.listen(steer.TCP))
	if !eventually(func() bool { return p.conns.Load() == 1 }) {
		t.Fatal("no connection")
	}
	time.Sleep(steer.SniffTime + 100*time.Millisecond)
	io.WriteString(conn, "GET / HTTP/1.1\r\nx-user: ada\r\n\r\n") // too late to be decided
	b := make([]byte, 100)
	if n, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "GET / ") || p.dials("ada") > 0 {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// A client that breaks off before it is clear what it speaks has said what it has said.
func TestBrokenBeginningIsTheApps(t *testing.T) {
	type end struct {
		got string
		err error
	}
	ended := make(chan end, 1)
	app := serveTCP(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		ended <- end{string(b), err}
	})
	c := dial(t, newPod(t, app, requests()).listen(steer.TCP))
	io.WriteString(c, "GET")
	c.SetLinger(0)
	c.Close()
	if e := <-ended; e.got != "GET" || !errors.Is(e.err, syscall.ECONNRESET) {
		t.Errorf("the app got %q, %v", e.got, e.err)
	}
}

// Where the app refuses, so do we; and what nobody listens to is not redirected,
// as a probe that only connects would see us.
func TestDeadAppRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newPod(t, l.Addr(), steal())
	p.laptopAt("ada", serveTCP(t, named("ada")).String())
	addr := p.listen(steer.TCP)
	l.Close()
	if got, err := tell(t, addr, "hello"); err == nil || p.dials("ada") > 0 {
		t.Errorf("%q, %v", got, err)
	}
	redirects, err := p.Set([]PortKey{{steer.TCP, p.port}})
	if len(redirects) > 0 || err != nil {
		t.Errorf("redirected: %v, %v", redirects, err)
	}
}

func TestDeadLaptop(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), steal())
	addr := p.listen(steer.TCP)
	if got, err := tell(t, addr, "hello"); err == nil {
		t.Errorf("%q", got)
	}
	p.until("failed", func(s steer.Seen) bool { return s.Rule != nil && errors.Is(s.Err, errNoLaptop) })

	toApp := steal()
	toApp.ToApp = true
	p.steer(toApp)
	if got, err := tell(t, addr, "hello"); got != "app: hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.until("passed", func(s steer.Seen) bool { return s.Rule == nil && s.Err == nil && s.In == 5 })

	if testing.Short() {
		t.Skip("waits for a silent laptop")
	}
	p.laptopAt("ada", "silence")
	if got, err := tell(t, addr, "hello"); got != "app: hello" || err != nil {
		t.Errorf("a silent laptop: %q, %v", got, err)
	}
}

// A laptop that dies in the middle is no end in order for the client.
func TestLaptopThatBreaksResetsClient(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), steal())
	p.laptopAt("ada", serveTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "half")
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	}).String())
	conn := dial(t, p.listen(steer.TCP))
	b := make([]byte, 10)
	if n, err := conn.Read(b); string(b[:n]) != "half" || err != nil {
		t.Fatalf("%q, %v", b[:n], err)
	}
	conn.Write(b)
	if _, err := conn.Read(b); err == nil || err == io.EOF {
		t.Errorf("%v, want a reset", err)
	}
}

// Requests of one connection go each its own way.
func TestRequestsAreDecided(t *testing.T) {
	answer := func(name string) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%s", name)
				}
			}
		}
	}
	p := newPod(t, serveTCP(t, answer("app")), requests())
	p.laptopAt("ada", serveTCP(t, answer("ada")).String())
	conn := dial(t, p.listen(steer.TCP))
	b := make([]byte, len("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp"))
	for _, c := range []struct{ fields, want string }{{"", "app"}, {"x-user: ada\r\n", "ada"}, {"", "app"}, {"x-user: ada\r\n", "ada"}} {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n"+c.fields+"\r\n")
		if _, err := io.ReadFull(conn, b); err != nil || !strings.HasSuffix(string(b), c.want) {
			t.Fatalf("%q, %v; want %s", b, err, c.want)
		}
	}
}

func TestStreamsAreDecided(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	answer := func(name string) net.Addr {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Protocols: &both, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, name, " ", r.Proto)
		})}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return l.Addr()
	}
	p := newPod(t, answer("app"), requests())
	p.laptopAt("ada", answer("ada").String())
	url := "http://" + p.listen(steer.TCP)
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &h2}
	defer transport.CloseIdleConnections()
	for _, c := range []struct{ user, want string }{{"bob", "app HTTP/2.0"}, {"ada", "ada HTTP/2.0"}, {"bob", "app HTTP/2.0"}} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("x-user", c.user)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != c.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", c.user, b, err, c.want)
		}
	}
}

// Probes of the kubelet reach the app of a port that a laptop has as a whole.
func TestProbesAreTheApps(t *testing.T) {
	var knocks atomic.Int32
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) { knocks.Add(1); named("app")(c) }), steal())
	p.laptopAt("ada", serveTCP(t, named("ada")).String())
	p.NodeAddrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	addr := p.listen(steer.TCP)
	const probe = "GET /healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.37\r\n\r\n"
	if got, err := tell(t, addr, probe); got != "app: "+probe || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	before := knocks.Load()
	dial(t, addr).Close()
	if !eventually(func() bool { return knocks.Load() == before+1 && p.conns.Load() == 0 }) {
		t.Error("the app was not knocked")
	}
	if p.dials("ada") > 0 {
		t.Error("the laptop was asked")
	}
	if got, err := tell(t, addr, "hello"); got != "ada: hello" || err != nil {
		t.Errorf("not a probe: %q, %v", got, err)
	}
}

// A port that is steered no more is listened to as long as the kernel may send
// there, and is the app's.
func TestRetiredPortIsTheApps(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for redirect.Timeout")
	}
	p := newPod(t, serveTCP(t, named("app")), steal())
	p.laptopAt("ada", serveTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }).String())
	addr := p.listen(steer.TCP)
	old := dial(t, addr)
	b := []byte("x")
	old.Write(b)
	if _, err := old.Read(b); err != nil {
		t.Fatal(err)
	}
	p.steer()
	if redirects, err := p.Set(nil); len(redirects) > 0 || err != nil {
		t.Errorf("%v, %v", redirects, err)
	}
	began := time.Now()
	if got, err := tell(t, addr, "hello"); got != "app: hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if !eventually(func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	}) || time.Since(began) < redirect.Timeout-time.Second {
		t.Errorf("closed after %s", time.Since(began))
	}
	old.Write(b)
	if _, err := old.Read(b); err != nil {
		t.Errorf("what was open: %v", err)
	}
}

func TestSetAndClose(t *testing.T) {
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }), requests())
	ports := []PortKey{{steer.TCP, p.port}, {steer.UDP, p.port}}
	first, err := p.Set(ports)
	if err != nil || len(first) != 2 {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := p.Set(ports)
	if err != nil || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("%v, then %v, %v", first, again, err)
	}
	if none, err := p.Set(nil); len(none) > 0 || err != nil {
		t.Errorf("%v, %v", none, err)
	}
	if again, err = p.Set(ports); err != nil || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("%v, and soon after %v, %v", first, again, err)
	}
	conn := dial(t, fmt.Sprintf("127.0.0.1:%d", first[0].To))
	if !eventually(func() bool { return p.conns.Load() == 1 }) {
		t.Fatal("no connection")
	}
	moved, err := p.Set(append(ports, PortKey{steer.TCP, first[0].To}))
	if err != nil || len(moved) != 3 || moved[0].To == first[0].To || moved[1] != first[1] {
		t.Errorf("our own port is steered: %v, then %v, %v", first, moved, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p.Drain(ctx)
	if ctx.Err() == nil {
		t.Error("there was something to wait for")
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("open after Close")
	}
	p.Drain(t.Context())
	if _, err := p.Set(ports); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
