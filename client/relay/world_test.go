package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

var (
	agent6 = netip.MustParseAddr("fd70:6f64:6e65:7400::a")
	other6 = netip.MustParseAddr("fd70:6f64:6e65:7400::b")
	relay6 = netip.MustParseAddr("fd70:6f64:6e65:7403::1")
)

var pod = Pod{Namespace: "shop", Name: "web-1", UID: "uid-1", Object: "ada-web-1"}

// world is a relay and the stack of an agent, tied together.
type world struct {
	t     *testing.T
	relay *Relay
	agent *netstack.Stack
}

func newWorld(t *testing.T, rules ...Rule) *world {
	t.Helper()
	r, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := netstack.New(netstack.Config{MTU: 1280})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{agent6, other6} {
		if err := agent.AddAddress(a); err != nil {
			t.Fatal(err)
		}
	}
	r.SetRules([]Rule{rule("first", 30000, closedPort(t))})
	r.SetAddr(relay6)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { wire(agent, r.stack) })
	done.Go(func() { wire(r.stack, agent) })
	done.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		agent.Close()
		done.Wait()
	})
	w := &world{t, r, agent}
	until(t, "the relay runs", func() bool {
		_, err := w.dial(30000)
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	r.SetRules(rules)
	return w
}

// wire carries packets from one device to the other.
func wire(from, to *netstack.Stack) {
	const offset = 16
	dev := from.Device()
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		batch := make([][]byte, n)
		for i := range n {
			batch[i] = bufs[i][:offset+sizes[i]]
		}
		_, _ = to.Device().Write(batch, offset)
	}
}

// rule is a rule for one agent.
func rule(name string, port uint16, local string) Rule {
	p := pod
	p.Object = "ada-" + name
	return Rule{Name: name, Port: port, Protocol: steer.TCP, Local: local, Agents: map[netip.Addr]Pod{agent6: p}}
}

// dial is what the agent does for a request.
func (w *world) dial(port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	c, err := w.agent.DialTCP(ctx, netip.AddrPortFrom(relay6, port))
	if err == nil {
		w.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (w *world) mustDial(port uint16) net.Conn {
	w.t.Helper()
	c, err := w.dial(port)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// listen serves each connection at addr with serve. It returns the port.
func listen(t *testing.T, addr string, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil && addr == "::1" {
		t.Skipf("this machine's loopback has no IPv6: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// closedPort is a port at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// greet is an agent that has said its first line.
func (w *world) greet() (net.Conn, *control.Reader) {
	w.t.Helper()
	c := w.mustDial(control.LivePort)
	say(w.t, c, control.FromPod{Podnet: control.Version, PodUID: pod.UID})
	until(w.t, "the agent is connected", func() bool { return w.relay.Live()[0].Connected })
	return c, control.NewReader(c)
}

func say(t *testing.T, c net.Conn, line control.FromPod) {
	t.Helper()
	if err := control.Write(c, line); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
