package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// cluster is what the proxies dial: names that only it knows.
type cluster map[string]string

func (c cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, ok := c[network+" "+address]
	switch {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}
	case to == "":
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// proxied starts a Server, and returns its address.
func proxied(t *testing.T, c cluster) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Dial: c.dial, Log: quiet}).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
				_ = c.(*net.TCPConn).CloseWrite()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// TestBothOnOnePort asks the same server by every way that curl has, by a name that
// only the cluster knows.
func TestBothOnOnePort(t *testing.T) {
	var got *http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		fmt.Fprint(w, "hello")
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	at := proxied(t, cluster{
		"tcp web.shop:80":     plain.Listener.Addr().String(),
		"tcp example.com:443": secure.Listener.Addr().String(),
	})
	for _, c := range []struct{ by, url string }{
		{"socks5h", "http://web.shop/a;b?x=1;2&%zz"}, {"http", "http://web.shop/a;b?x=1;2&%zz"},
		{"socks5h", "https://example.com/"}, {"http", "https://example.com/"},
	} {
		t.Run(c.by+" "+c.url[:5], func(t *testing.T) {
			tr := secure.Client().Transport.(*http.Transport).Clone()
			tr.Proxy = http.ProxyURL(&url.URL{Scheme: c.by, Host: at})
			defer tr.CloseIdleConnections()
			req, err := http.NewRequest(http.MethodGet, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Forwarded-For", "192.0.2.7")
			req.Header["User-Agent"] = nil
			r, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if body, err := io.ReadAll(r.Body); string(body) != "hello" || err != nil {
				t.Errorf("%d %q %v", r.StatusCode, body, err)
			}
			if want, _, _ := strings.Cut(strings.TrimPrefix(c.url, "http://web.shop"), "https://example.com"); want != "" && got.RequestURI != want {
				t.Errorf("the server was asked for %s", got.RequestURI)
			}
			if x := got.Header.Values("X-Forwarded-For"); len(x) != 1 || x[0] != "192.0.2.7" || got.Header.Get("User-Agent") != "" {
				t.Errorf("the server saw %v", got.Header)
			}
		})
	}
}

func TestFailuresAreTold(t *testing.T) {
	at := proxied(t, cluster{"tcp closed:80": ""})
	for _, c := range []struct {
		host  string
		reply byte
	}{{"closed", socksRefused}, {"nobody", socksHost}} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(append(append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(c.host))}, c.host...), 0, 80))
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[3] != c.reply {
			t.Errorf("%s by SOCKS: %v %v", c.host, answer, err)
		}
		for _, request := range []string{"CONNECT " + c.host + ":80 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://" + c.host + "/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
			if status, text := ask(t, at, request); status != http.StatusBadGateway || !strings.HasPrefix(text, "podnet: ") {
				t.Errorf("%q: %d %s", request, status, text)
			}
		}
	}
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n", "CONNECT web HTTP/1.1\r\nHost: x\r\n\r\n", "GET https://web.shop/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
		if status, text := ask(t, at, request); status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", request, status, text)
		}
	}
}

func ask(t *testing.T, at, request string) (status int, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, request)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// TestHalfClosed lets a program say all it has before it listens, as nc -N does.
func TestHalfClosed(t *testing.T) {
	at := proxied(t, cluster{"tcp echo:7": echoServer(t)})
	for name, hello := range map[string]string{
		"socks": "\x05\x01\x00\x05\x01\x00\x03\x04echo\x00\x07", "http": "CONNECT echo:7 HTTP/1.1\r\nHost: echo:7\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all := strings.Repeat("0123456789", 100_000)
		go func() {
			_, _ = io.WriteString(conn, hello+all) // early: before it hears that it may
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.HasSuffix(got, []byte(all)) || len(got) > len(all)+100 {
			t.Errorf("%s: %d bytes came back, %v", name, len(got), err)
		}
	}
}

// hearing answers datagrams.
func hearing(t *testing.T) string {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(append([]byte("heard "), b[:n]...), from)
		}
	})
	t.Cleanup(func() { udp.Close(); answering.Wait() })
	return udp.LocalAddr().String()
}

// forwarding serves a Forward, and returns where.
func forwarding(t *testing.T, text string, d Dial) string {
	t.Helper()
	f, err := ParseForward(text)
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Serve(ctx, d, quiet) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return o.Listen.String()
}

// answered is what comes back for a question.
func answered(t *testing.T, conn net.Conn) string {
	t.Helper()
	_, _ = io.WriteString(conn, "question")
	b := make([]byte, 100)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := conn.Read(b)
	if err != nil {
		t.Error(err)
	}
	return string(b[:n])
}

// TestSlowNameHoldsUpNobody: one sender's flow is not connected yet, and another's works.
func TestSlowNameHoldsUpNobody(t *testing.T) {
	c := cluster{"udp dns.shop:53": hearing(t)}
	var second atomic.Bool
	begun, known := make(chan struct{}), make(chan struct{})
	at := forwarding(t, "127.0.0.1:0=dns.shop:53/udp", func(ctx context.Context, network, address string) (net.Conn, error) {
		if !second.Swap(true) {
			close(begun)
			<-known
		}
		return c.dial(ctx, network, address)
	})
	var conns []net.Conn
	for range 2 {
		conn, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	_, _ = io.WriteString(conns[0], "early")
	<-begun
	if got := answered(t, conns[1]); got != "heard question" {
		t.Errorf("the other one hears %q", got)
	}
	close(known)
	b := make([]byte, 100)
	_ = conns[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conns[0].Read(b); string(b[:n]) != "heard early" {
		t.Errorf("the first one hears %q, %v", b[:n], err)
	}
}

func TestForward(t *testing.T) {
	c := cluster{"tcp db.shop:5432": echoServer(t), "udp dns.shop:53": hearing(t)}
	open := func(text string) string { return forwarding(t, text, c.dial) }
	for _, each := range []struct{ network, to, want string }{
		{"tcp", open("0=db.shop:5432"), "question"}, {"udp", open("127.0.0.1:0=dns.shop:53/udp"), "heard question"},
	} {
		for range 3 { // senders of their own
			conn, err := net.Dial(each.network, each.to)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := answered(t, conn); got != each.want {
				t.Errorf("%s: %q", each.network, got)
			}
		}
	}
	conn, err := net.Dial("tcp", open("0=nobody.shop:1"))
	if err == nil { // the reset has not come yet
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a forward to nobody: %v", err)
	}
}

func TestParseForward(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for text, want := range map[string]Forward{
		"5432=db.shop:5432":          {"tcp", netip.AddrPortFrom(local, 5432), "db.shop:5432"},
		"0=db.shop:5432/tcp":         {"tcp", netip.AddrPortFrom(local, 0), "db.shop:5432"},
		"[::1]:53=[fd00::a]:53/udp":  {"udp", netip.MustParseAddrPort("[::1]:53"), "[fd00::a]:53"},
		"0.0.0.0:80=10.96.0.10:8080": {"tcp", netip.MustParseAddrPort("0.0.0.0:80"), "10.96.0.10:8080"},
	} {
		if got, err := ParseForward(text); got != want || err != nil {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5432", "5432=db", "x=db:1", "70000=db:1", "1=db:0", "1=:80", "db:1=db:1", "1=db:1/sctp"} {
		if got, err := ParseForward(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// FuzzSocks reads what anybody may send.
func FuzzSocks(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x04echo\x00\x07"))
	f.Add([]byte("\x05\x02\x00\x02\x05\x01\x00\x01\x0a\x60\x00\x01\x00\x50"))
	f.Add([]byte("\x05\x01\x00\x05\x03\x00\x04" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var said bytes.Buffer
		address, err := readSocks(bytes.NewReader(b), &said)
		if said.Len() > 2 {
			t.Errorf("%d bytes of greeting", said.Len())
		}
		if err != nil {
			return
		}
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			t.Errorf("address %q: %v", address, err)
		}
	})
}
