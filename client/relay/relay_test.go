package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
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

func TestInspectKeepsBeginnings(t *testing.T) {
	r := rule("web", 20000, listen(t, "127.0.0.1", echo))
	r.Inspect = true
	w := newWorld(t, r)
	for i := range InspectConns + 1 {
		c := w.mustDial(20000)
		sent := bytes.Repeat([]byte{byte(i)}, InspectBytes+1000)
		go func() { _, _ = c.Write(sent) }()
		if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	until(t, "all are over", func() bool {
		for _, i := range w.relay.Inspected("web") {
			if !i.Over {
				return false
			}
		}
		return true
	})
	got := w.relay.Inspected("web")
	if len(got) != InspectConns {
		t.Fatalf("%d connections are kept", len(got))
	}
	for n, i := range got {
		want := bytes.Repeat([]byte{byte(n + 1)}, InspectBytes)
		if !bytes.Equal(i.In, want) || !bytes.Equal(i.Out, want) || i.Pod != "web-1" {
			t.Errorf("connection %d of %s: %d bytes in, %d out", n, i.Pod, len(i.In), len(i.Out))
		}
	}
	if w.relay.Inspected("other") != nil {
		t.Error("another rule has connections")
	}
}

func TestRunEndsWithConnections(t *testing.T) {
	w := newWorld(t, rule("web", 20000, listen(t, "127.0.0.1", echo)))
	w.mustDial(20000)
	w.greet()
}
