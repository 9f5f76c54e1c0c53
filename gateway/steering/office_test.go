package steering

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

var theGateways = []control.Gateway{{PublicKey: testKey(200), Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.5:51820")}}}

// office is a Server in a bubble, to which agents come through pipes.
type office struct {
	t     *testing.T
	s     *Server
	conns chan net.Conn

	mu       sync.Mutex
	here     map[netip.Addr]bool
	gateways []control.Gateway
}

func inOffice(t *testing.T, f func(*testing.T, *office)) {
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, conns: make(chan net.Conn), here: map[netip.Addr]bool{}, gateways: theGateways}
		o.s = NewServer(slog.New(slog.DiscardHandler), func() []control.Gateway {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.gateways
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- o.s.Serve(ctx, &listener{conns: o.conns, closed: make(chan struct{})}) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if len(o.s.sessions) != 0 {
				t.Errorf("%d sessions are left", len(o.s.sessions))
			}
		}()
		f(t, o)
	})
}

type listener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return nil }

type from struct {
	net.Conn
	addr netip.Addr
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 40000))
}

func (o *office) set(agents ...Agent) {
	o.s.SetAgents(agents, func(a netip.Addr) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.here[a]
	})
}

// caller is an agent's end of a connection. It notes all that it is told.
type caller struct {
	conn net.Conn
	mu   sync.Mutex
	told []control.ToAgent
	err  error // why no more is told
}

func (o *office) dial(k key.Public) *caller {
	here, there := net.Pipe()
	o.t.Cleanup(func() { _ = here.Close() })
	o.conns <- from{there, k.Address6()}
	c := &caller{conn: here}
	go func() {
		r := control.NewReader(here)
		for {
			var m control.ToAgent
			err := r.Read(&m)
			c.mu.Lock()
			if c.err = err; err == nil {
				c.told = append(c.told, m)
			}
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *caller) say(m control.FromAgent) error { return control.Write(c.conn, m) }

// greet dials and says where the agent is.
func (o *office) greet(k key.Public, pod string) *caller {
	c := o.dial(k)
	if err := c.say(control.FromAgent{Podnet: control.Version, PodUID: pod}); err != nil {
		o.t.Fatal(err)
	}
	synctest.Wait()
	return c
}

// live beats for a time.
func (c *caller) live(d time.Duration) {
	for range int(d / control.Beat) {
		time.Sleep(control.Beat)
		_ = c.say(control.FromAgent{})
	}
	synctest.Wait()
}

// sets are those that were told, and beats how many lines were not.
func (c *caller) sets() (sets []control.Set, beats int) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.told {
		if m.Set != nil {
			sets = append(sets, *m.Set)
		} else {
			beats++
		}
	}
	return sets, beats
}

func (c *caller) cut() bool {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

func testAgent(k int, pod string, names ...string) Agent {
	a := Agent{Key: testKey(k), PodUID: "pod-" + pod, Namespace: "shop", Pod: "web-" + pod, Chosen: len(names) > 0}
	for _, n := range names {
		a.Rules = append(a.Rules, control.Rule{
			Rule:   steer.Rule{Name: n, Owner: "alice", Protocol: steer.TCP, Port: 8080, Mode: steer.Steal, Matches: header(n)},
			Laptop: testKey(1).RelayAddress6(), RelayPort: 20000,
		})
	}
	return a
}

func names(s control.Set) string {
	var all []string
	for _, r := range s.Rules {
		n := r.Name
		if r.Here {
			n += "!"
		}
		all = append(all, n)
	}
	return strings.Join(all, ",")
}

func (o *office) changed() bool {
	synctest.Wait()
	select {
	case <-o.s.Changed():
		return true
	default:
		return false
	}
}
