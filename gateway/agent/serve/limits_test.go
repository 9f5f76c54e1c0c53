package serve

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"podnet.dev/internal/steer"
)

func TestTooManyForOneLaptop(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), steal())
	p.laptopAt("ada", serveTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }).String())
	addr := p.listen(steer.TCP)
	var held []*net.TCPConn
	b := make([]byte, 1)
	for range MaxLaptop {
		c := dial(t, addr)
		c.Write(b)
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if got, err := tell(t, addr, "hello"); err == nil {
		t.Errorf("one more: %q", got)
	}
	held[0].Close()
	if !eventually(func() bool { got, _ := tell(t, addr, "hello"); return got == "hello" }) {
		t.Error("there is no room again")
	}
}

func TestMirrorGetsCopy(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), mirror())
	copied := make(chan string, 1)
	p.laptopAt("bob", serveTCP(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		io.WriteString(c, "nobody reads this")
		copied <- string(b)
	}).String())
	if got, err := tell(t, p.listen(steer.TCP), "hello"); got != "app: hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := <-copied; got != "hello" {
		t.Errorf("copy %q", got)
	}
	p.until("copied", func(s steer.Seen) bool { return s.Mirror && s.Rule.Owner == "bob" && s.In == 5 && s.Err == nil })
}

// A laptop that does not read costs the app nothing.
func TestSlowMirrorIsDropped(t *testing.T) {
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		fmt.Fprint(c, n)
	}), mirror())
	quit := make(chan struct{})
	p.laptopAt("bob", serveTCP(t, func(*net.TCPConn) { <-quit }).String())
	defer close(quit)
	const size = 32 << 20
	if got, err := tell(t, p.listen(steer.TCP), strings.Repeat("x", size)); got != fmt.Sprint(size) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.until("dropped", func(s steer.Seen) bool { return s.Mirror && s.Err == errSlowCopy })
	p.wantNothingWaits()
}

func TestListeningPorts(t *testing.T) {
	const file = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:2000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
`
	const file6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 00000000000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
`
	ports := portSet{}
	err := errors.Join(ports.read(strings.NewReader(file), inet4), ports.read(strings.NewReader(file6), inet6))
	if want := (portSet{8080: inetBoth, 80: inet4, 81: inetBoth, 82: inet6}); err != nil || !maps.Equal(ports, want) {
		t.Errorf("%v, %v, want %v", ports, err, want)
	}
	if portSet(nil).of(1) != inetBoth {
		t.Error("what is not known counts as listening")
	}
}

// TestListenersAreAskedFor: by sock_diag, and by what there is without it, each port to
// which somebody listens, and not those of connections.
func TestListenersAreAskedFor(t *testing.T) {
	quit := make(chan struct{})
	defer close(quit)
	listens := netip.MustParseAddrPort(serveTCP(t, func(*net.TCPConn) { <-quit }).String()).Port()
	connects := dial(t, fmt.Sprintf("127.0.0.1:%d", listens)).LocalAddr().(*net.TCPAddr).AddrPort().Port()
	ports := portSet{}
	if err := ports.ask(); errors.Is(err, syscall.ENOENT) {
		t.Skip("the kernel has no tcp_diag")
	} else if err != nil || ports.of(listens) != inet4 || ports.of(connects) != 0 {
		t.Errorf("%d listens and %d does not: %v, %v", listens, connects, ports, err)
	}
}

// wantNothingWaits waits until all that was taken of the budget is given back.
func (p *pod) wantNothingWaits() {
	p.t.Helper()
	if !eventually(func() bool {
		all := p.waiting.Take(MaxWaiting)
		if all {
			p.waiting.Give(MaxWaiting)
		}
		return all
	}) {
		p.t.Error("something is still counted as waiting")
	}
}

// Copies of requests count as well, and are dropped where there is no room.
func TestCopiesOfRequestsShareRoom(t *testing.T) {
	rule := mirror()
	rule.Matches = []steer.Match{{Method: "*"}}
	p := newPod(t, serveTCP(t, named("app")), rule)
	p.laptopAt("bob", serveTCP(t, named("bob")).String())
	addr := p.listen(steer.TCP)
	const room = 100
	p.waiting.Take(MaxWaiting - room)
	const body = 1000
	request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", body, strings.Repeat("x", body))
	if got, err := tell(t, addr, request); got != "app: "+request || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.until("dropped", func(s steer.Seen) bool { return s.Mirror && s.Err != nil })
	p.waiting.Give(MaxWaiting - room)
	p.wantNothingWaits()
}

func TestTooManyConnectionsAreTheApps(t *testing.T) {
	p := newPod(t, serveTCP(t, named("app")), steal())
	p.laptopAt("ada", serveTCP(t, named("ada")).String())
	addr := p.listen(steer.TCP)
	p.conns.Add(MaxConns)
	if got, err := tell(t, addr, "hello"); got != "app: hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.conns.Add(-MaxConns)
	if got, err := tell(t, addr, "hello"); got != "ada: hello" || err != nil {
		t.Errorf("there is room again: %q, %v", got, err)
	}
}

// FuzzListening reads a file of proc(5) that is not as it should be.
func FuzzListening(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n")
	f.Add("head\n0: 0100007F:FFFFF 0:0 0A\n")
	f.Add("head\n0: nothing 0:0 0A\n")
	f.Fuzz(func(t *testing.T, text string) {
		ports := portSet{}
		if err := ports.read(strings.NewReader(text), inet6); err == nil && len(ports) > strings.Count(text, "0A") {
			t.Errorf("%d ports in %q", len(ports), text)
		}
	})
}
