package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBytesArriveBothWaysAndEndsAreTold(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			// The program answers only when it has heard all.
			port := listen(t, host, func(c net.Conn) {
				all, _ := io.ReadAll(c)
				_, _ = c.Write(all)
			})
			w := newWorld(t, rule("web", 20000, port))
			c := w.mustDial(20000).(interface {
				net.Conn
				CloseWrite() error
			})
			sent := make([]byte, 3<<20)
			_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes of %d came back: %v", len(got), len(sent), err)
			}
		})
	}
}

func TestRefusedStaysRefused(t *testing.T) {
	dead := closedPort(t)
	w := newWorld(t, rule("web", 20000, dead))
	if _, err := w.dial(20000); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, want refused", err)
	}
	want := "connection refused at 127.0.0.1:" + dead
	until(t, want, func() bool { return w.relay.Live()[0].Rules[0].Trouble == want })
	w.relay.SetRules([]Rule{rule("web", 20000, listen(t, "127.0.0.1", echo))})
	w.mustDial(20000)
	if got := w.relay.Live()[0].Rules[0].Trouble; got != "" {
		t.Errorf("the program is there, the trouble %q remains", got)
	}
}

func TestOnlyAgentsOfTheRuleGetThrough(t *testing.T) {
	port := listen(t, "127.0.0.1", echo)
	stranger := rule("other", 20001, port)
	stranger.Agents = map[netip.Addr]Pod{netip.MustParseAddr("fd70:6f64:6e65:7400::c"): pod}
	w := newWorld(t, rule("web", 20000, port), stranger)
	for _, p := range []uint16{20001, 20002, 80} {
		if c, err := w.dial(p); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %v, %v; want silence", p, c, err)
		}
	}
	w.mustDial(20000)
	w.relay.SetAddr(netip.MustParseAddr("fd70:6f64:6e65:7403::2"))
	if _, err := w.dial(20000); err == nil {
		t.Error("the old address still answers")
	}
}

func TestRuleThatGoesTakesItsConnections(t *testing.T) {
	port := listen(t, "127.0.0.1", echo)
	w := newWorld(t, rule("web", 20000, port), rule("api", 20001, port))
	web, api := w.mustDial(20000), w.mustDial(20001)
	w.relay.SetRules([]Rule{rule("api", 20001, port)})
	_ = web.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := web.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read from a rule that is gone: %v", err)
	}
	if _, err := api.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = api.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := api.Read(make([]byte, 1)); err != nil {
		t.Errorf("read from a rule that stays: %v", err)
	}
}

func TestResetIsPassedOn(t *testing.T) {
	closed := make(chan error, 1)
	port := listen(t, "127.0.0.1", func(c net.Conn) {
		buf := make([]byte, 1)
		_, _ = c.Read(buf)
		if buf[0] == 'r' {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		_, _ = c.Write(buf)
		_, err := c.Read(buf)
		closed <- err
	})
	w := newWorld(t, rule("web", 20000, port))
	c := w.mustDial(20000)
	_, _ = c.Write([]byte("r"))
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the program reset, the agent reads %v", err)
	}
	c = w.mustDial(20000)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.(interface{ Reset() }).Reset()
	if err := <-closed; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the agent reset, the program reads %v", err)
	}
}

func TestInspectKeepsTheLastConnections(t *testing.T) {
	r := rule("web", 20000, listen(t, "127.0.0.1", echo))
	r.Inspect = true
	w := newWorld(t, r)
	for i := range InspectConns + 1 {
		c := w.mustDial(20000)
		sent := bytes.Repeat([]byte{byte(i)}, 1000)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	until(t, "all are over", func() bool {
		return !slices.ContainsFunc(w.relay.Inspected("web"), func(i Inspection) bool { return !i.Over })
	})
	got := w.relay.Inspected("web")
	if len(got) != InspectConns {
		t.Fatalf("%d connections are kept", len(got))
	}
	for n, i := range got {
		want := bytes.Repeat([]byte{byte(n + 1)}, 1000)
		if len(i.Exchanges) == 0 || i.Pod != "web-1" || i.Began.IsZero() {
			t.Fatalf("connection %d: %+v", n, i)
		}
		var in, out []byte // the echo may begin before all has come
		for _, e := range i.Exchanges {
			in, out = append(in, e.In...), append(out, e.Out...)
		}
		if !bytes.Equal(in, want) || !bytes.Equal(out, want) {
			t.Errorf("connection %d: %d bytes in, %d out", n, len(in), len(out))
		}
	}
	if w.relay.Inspected("other") != nil {
		t.Error("another rule has connections")
	}
	w.relay.SetRules(nil)
	if w.relay.Inspected("web") != nil {
		t.Error("what a rule has kept outlives it")
	}
}

// Of more connections at once nothing is kept but of the last.
func TestInspectForgetsWhatGoesOn(t *testing.T) {
	w := newWorld(t, rule("web", 20000, "1"))
	var all []*inspection
	for range InspectConns + 1 {
		i := w.relay.state.inspect("web", &inspection{began: time.Now()}, w.relay.table.Load)
		i.heard([]byte("hello"))
		all = append(all, i)
	}
	all = append(all, w.relay.state.inspect("gone", &inspection{began: time.Now()}, w.relay.table.Load))
	for n, i := range all {
		i.heard([]byte("and more"))
		i.said([]byte("hello"))
		if kept, want := len(i.seen().Exchanges) > 0, n > 0 && n <= InspectConns; kept != want {
			t.Errorf("connection %d: kept %v, want %v", n, kept, want)
		}
	}
	if got := w.relay.Inspected("web"); len(got) != InspectConns {
		t.Errorf("%d connections are kept", len(got))
	}
}

// A connection is kept as exchanges, and of a long one the last.
func TestExchanges(t *testing.T) {
	var i inspection
	for n := range 3 {
		i.heard(fmt.Appendf(nil, "GET /%d", n))
		i.heard([]byte(" HTTP/1.1"))
		i.said([]byte("HTTP/1.1 "))
		i.said([]byte("200 OK"))
	}
	got := i.seen()
	if len(got.Exchanges) != 3 || got.Forgotten != 0 || got.Over {
		t.Fatalf("%+v", got)
	}
	for n, e := range got.Exchanges {
		if string(e.In) != fmt.Sprintf("GET /%d HTTP/1.1", n) || string(e.Out) != "HTTP/1.1 200 OK" || e.Began.IsZero() {
			t.Errorf("exchange %d: %q, %q", n, e.In, e.Out)
		}
	}

	big := bytes.Repeat([]byte("x"), InspectBytes+10)
	i.heard(big)
	i.said(big)
	got = i.seen()
	if e := got.Exchanges[0]; len(got.Exchanges) != 1 || got.Forgotten != 3 || len(e.In) != InspectBytes || len(e.Out) != InspectBytes || e.InMore != 10 || e.OutMore != 10 {
		t.Errorf("after a large one: %d exchanges, %d forgotten", len(got.Exchanges), got.Forgotten)
	}
	for range 2 * InspectExchanges {
		i.heard([]byte("q"))
		i.said([]byte("a"))
	}
	if got = i.seen(); len(got.Exchanges) != InspectExchanges || got.Forgotten != 3+1+InspectExchanges {
		t.Errorf("after many small ones: %d exchanges, %d forgotten", len(got.Exchanges), got.Forgotten)
	}
	if i.in != InspectExchanges || i.out != InspectExchanges {
		t.Errorf("it counts %d and %d bytes", i.in, i.out)
	}
	var hasty inspection // answers before it has the body
	hasty.heard([]byte("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n"))
	hasty.said([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	hasty.heard([]byte("two a"))
	hasty.heard([]byte("pples"))
	hasty.heard([]byte("GET / HTTP/1.1\r\n\r\n"))
	if got = hasty.seen(); len(got.Exchanges) != 2 || !strings.HasSuffix(string(got.Exchanges[0].In), "\r\n\r\ntwo apples") || string(got.Exchanges[1].In) != "GET / HTTP/1.1\r\n\r\n" {
		t.Errorf("a request that is answered before it is whole: %+v", got)
	}
	var greets inspection
	greets.said([]byte("220 hello"))
	greets.heard([]byte("EHLO"))
	if got = greets.seen(); len(got.Exchanges) != 2 || len(got.Exchanges[0].In) != 0 || string(got.Exchanges[1].In) != "EHLO" {
		t.Errorf("where the program speaks first: %+v", got)
	}
}

func TestRunEndsWithConnections(t *testing.T) {
	w := newWorld(t, rule("web", 20000, listen(t, "127.0.0.1", echo)))
	w.mustDial(20000)
	w.greet()
}

// FuzzExchanges: whatever is said, nothing of it is lost as long as there is room, and
// what may be replayed is a whole request.
func FuzzExchanges(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"), []byte("four"), []byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"), []byte("a\r\n0\r\n\r\n"), []byte("220 hello"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET / HTTP/1.1\r\n\r\n"), []byte("Q\x00"), []byte{})
	f.Fuzz(func(t *testing.T, first, then, answer []byte) {
		var i inspection
		i.heard(first)
		i.said(answer)
		i.heard(then)
		var in, out []byte
		for _, e := range i.seen().Exchanges {
			in, out = append(in, e.In...), append(out, e.Out...)
			if _, err := whole(e.In); err == nil && owes(&e) {
				t.Errorf("%q is whole, and goes on", e.In)
			}
		}
		if len(first)+len(then) < InspectBytes && !bytes.Equal(in, append(bytes.Clone(first), then...)) || len(answer) < InspectBytes && !bytes.Equal(out, answer) {
			t.Errorf("%q and %q are kept as %q, %q as %q", first, then, in, answer, out)
		}
	})
}
