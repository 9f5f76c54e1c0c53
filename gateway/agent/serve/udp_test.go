package serve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

func overUDP(r steer.Rule) steer.Rule {
	r.Protocol = steer.UDP
	return r
}

// serveUDP answers each datagram behind a name.
func serveUDP(t testing.TB, addr, name string) net.Addr {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skipf("no address %s: %v", addr, err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, maxDatagram); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo(append([]byte(name+": "), b[:n]...), from)
		}
	}()
	return conn.LocalAddr()
}

// client is a connected socket: what comes from another address does not arrive.
func client(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ask(t testing.TB, conn net.Conn, text string) string {
	t.Helper()
	conn.Write([]byte(text))
	b := make([]byte, maxDatagram)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestDatagramsAreDecided(t *testing.T) {
	p := newPod(t, serveUDP(t, "127.0.0.1:0", "app"), overUDP(steal()))
	p.laptopAt("ada", serveUDP(t, "127.0.0.1:0", "ada").String())
	conn := client(t, p.listen(steer.UDP))
	if got := ask(t, conn, "1"); got != "ada: 1" {
		t.Errorf("stolen: %q", got)
	}
	p.steer()
	if got := ask(t, conn, "2"); got != "app: 2" {
		t.Errorf("the same client, not stolen any more: %q", got)
	}
	s := p.until("end of the rule", func(s steer.Seen) bool { return s.Rule != nil })
	if s.In != 1 || s.Out != 6 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	p.steer(overUDP(steal()))
	if got := ask(t, conn, "3"); got != "ada: 3" {
		t.Errorf("stolen again: %q", got)
	}
}

func TestLargeAndEmptyDatagrams(t *testing.T) {
	p := newPod(t, serveUDP(t, "127.0.0.1:0", "a"), overUDP(steal()))
	p.laptopAt("ada", serveUDP(t, "127.0.0.1:0", "b").String())
	addr := p.listen(steer.UDP)
	for _, rules := range [][]steer.Rule{nil, {overUDP(steal())}} {
		p.steer(rules...)
		for _, size := range []int{0, 1, 1400, 60000} {
			if got := ask(t, client(t, addr), string(make([]byte, size))); len(got) != size+len("a: ") {
				t.Errorf("%d bytes: %d came", size, len(got))
			}
		}
	}
}

// An answer comes from the address that was asked, of whichever family.
func TestAnswersComeFromWhereWasAsked(t *testing.T) {
	app := serveUDP(t, "127.0.0.1:0", "one")
	p := newPod(t, app, overUDP(steal()))
	p.laptopAt("ada", serveUDP(t, "127.0.0.1:0", "ada").String())
	serveUDP(t, fmt.Sprintf("127.0.0.2:%d", p.port), "two")
	serveUDP(t, fmt.Sprintf("[::1]:%d", p.port), "six")
	to := netip.MustParseAddrPort(p.listen(steer.UDP)).Port()
	for _, addr := range []string{"127.0.0.1", "127.0.0.2", "[::1]"} {
		if got := ask(t, client(t, fmt.Sprintf("%s:%d", addr, to)), "?"); got != "ada: ?" {
			t.Errorf("%s: %q", addr, got)
		}
	}
	p.steer()
	for addr, want := range map[string]string{"127.0.0.1": "one: ?", "127.0.0.2": "two: ?", "[::1]": "six: ?"} {
		if got := ask(t, client(t, fmt.Sprintf("%s:%d", addr, to)), "?"); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

func TestMirrorGetsDatagrams(t *testing.T) {
	p := newPod(t, serveUDP(t, "127.0.0.1:0", "app"), overUDP(mirror()))
	laptop, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer laptop.Close()
	p.laptopAt("bob", laptop.LocalAddr().String())
	conn := client(t, p.listen(steer.UDP))
	if got := ask(t, conn, "hello"); got != "app: hello" {
		t.Errorf("%q", got)
	}
	b := make([]byte, 10)
	laptop.SetDeadline(time.Now().Add(patience))
	n, from, err := laptop.ReadFrom(b)
	if err != nil || string(b[:n]) != "hello" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	laptop.WriteTo([]byte("nobody reads this"), from)
	if got := ask(t, conn, "again"); got != "app: again" {
		t.Errorf("%q", got)
	}
	p.Close()
	p.until("copied", func(s steer.Seen) bool { return s.Mirror && s.In == 10 && s.Err == nil })
	p.until("passed", func(s steer.Seen) bool { return s.Rule == nil && s.In == 10 })
}

func TestDeadLaptopOfDatagrams(t *testing.T) {
	rule := overUDP(steal())
	rule.ToApp = true
	p := newPod(t, serveUDP(t, "127.0.0.1:0", "app"), rule)
	if got := ask(t, client(t, p.listen(steer.UDP)), "hello"); got != "app: hello" {
		t.Errorf("%q", got)
	}
	p.until("failed", func(s steer.Seen) bool { return s.Rule != nil && errors.Is(s.Err, errNoLaptop) })
	p.wantNothingWaits()
}

// The client that was silent longest makes room, at the port and at the laptop.
func TestTooManyFlows(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		rules []steer.Rule
		want  string
	}{
		"at the port":   {maxFlows, nil, "app: x"},
		"at the laptop": {MaxLaptop, []steer.Rule{overUDP(steal())}, "ada: x"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t, serveUDP(t, "127.0.0.1:0", "app"), c.rules...)
			p.laptopAt("ada", serveUDP(t, "127.0.0.1:0", "ada").String())
			addr := p.listen(steer.UDP)
			first := client(t, addr)
			for i := range c.limit + 10 {
				conn, err := net.Dial("udp", addr)
				if err != nil {
					t.Fatal(err)
				}
				conn.SetDeadline(time.Now().Add(patience))
				if got := ask(t, conn, "x"); got != c.want {
					t.Fatalf("%d: %q", i, got)
				}
				conn.Close()
				if i%100 == 0 {
					ask(t, first, "still here")
				}
			}
			if got := ask(t, first, "x"); got != c.want {
				t.Errorf("%q", got)
			}
			if n := p.dials("ada"); len(c.rules) > 0 && n > c.limit+11 {
				t.Errorf("%d ways to the laptop, want one for each client", n)
			}
		})
	}
}
