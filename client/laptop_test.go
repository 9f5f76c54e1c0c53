package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client"
	"podnet.dev/client/addressing"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/client/router"
	"podnet.dev/client/userspace"
	"podnet.dev/e2e/crowd"
	"podnet.dev/e2e/town"
)

// place is a town, and how a laptop connects there.
type place struct {
	*town.Town
	t      *testing.T
	log    *slog.Logger
	lease  int32 // in seconds
	hidden bool  // gateways have candidates, and no endpoints
	opens  []string
	// addresses, networks and others are how the laptops that connect next see the
	// town, and what they have beside it.
	addresses string
	device    string
	networks  []router.Network
	others    func() []addressing.Network
	// fleet and name are those of its session, which is not primary if secondary.
	fleet     *client.Fleet
	name      string
	secondary bool
	all       func() []string // the session is one of all namespaces, which are these
}

// spaced is a cluster with namespaces of a test's choice.
type spaced struct {
	client.Cluster
	list func() []string
}

func (c spaced) Namespaces(context.Context) ([]string, error) { return c.list(), nil }

func newTown(t *testing.T, pods ...string) *place {
	log := slog.New(slog.DiscardHandler)
	return &place{Town: town.New(t, log, pods...), t: t, log: log, lease: 2, opens: []string{"shop"}}
}

// hidden is a cluster that publishes its gateways' endpoints as candidates, and
// learns the laptop's.
type hidden struct {
	client.Cluster
	town client.Cluster
}

func (c hidden) SetCandidates(ctx context.Context, namespace, name string, list []string) error {
	return c.town.SetCandidates(ctx, namespace, name, list)
}

func (c hidden) Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.Peer(ctx, namespace, name)
	return hide(p), err
}

func (c hidden) Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.Await(ctx, namespace, name, accesses)
	return hide(p), err
}

func (c hidden) SetVirtual(ctx context.Context, namespace, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	p, err := c.Cluster.SetVirtual(ctx, namespace, name, virtual)
	return hide(p), err
}

func hide(p *v1alpha1.Peer) *v1alpha1.Peer {
	if p != nil {
		for i := range p.Status.Gateways {
			g := &p.Status.Gateways[i]
			g.Endpoints, g.Candidates = nil, g.Endpoints
		}
	}
	return p
}

// laptop is a session in a town.
type laptop struct {
	t       *testing.T
	host    *userspace.Host
	kernel  kernelHost // the host, with a device in its kernel
	wire    *crowd.Wire
	session *client.Session
	news    chan netwatch.Event
	ended   chan error
	leave   func()

	mu     sync.Mutex
	events []localapi.Event
}

// connect returns when the session is ready. The lease is short unless a test
// says otherwise.
func (w *place) connect(path string) *laptop {
	w.t.Helper()
	l := w.begin(path)
	l.within(10*time.Second, "ready", func() bool { return l.told(localapi.EventReady, "") })
	return l
}

// begin returns at once.
func (w *place) begin(path string) *laptop {
	l := &laptop{t: w.t, host: userspace.New(userspace.Config{Log: w.log}), wire: crowd.NewWire(), news: make(chan netwatch.Event), ended: make(chan error, 1)}
	l.kernel = newKernelHost(l.host)
	l.host.Join(w.networks...)
	ctx, cancel := context.WithCancel(context.Background())
	var c client.Cluster = steerable{crowd.Over(l.wire, w.Cluster()), w.Cluster().(pods), w.Cluster().(names)}
	if w.hidden {
		c = hidden{c, w.Cluster()}
	}
	if w.all != nil {
		c = spaced{c, w.all}
	}
	l.session = client.New(client.Config{
		Request: localapi.ConnectRequest{Namespaces: w.opens, AllNamespaces: w.all != nil, GatewayNamespace: "podnet-system", LeaseSeconds: w.lease, Path: path, Addresses: w.addresses, Name: w.name, Device: w.device},
		Fleet:   w.fleet,
		Events: func(e localapi.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, e)
		},
		OpenCluster: func(localapi.Kube) (client.Cluster, error) { return c, nil },
		OpenHelper: func(context.Context, func(string)) (helper.Session, error) {
			if w.device == localapi.DeviceKernel {
				return l.kernel, nil
			}
			return l.host, nil
		},
		Dial:   l.host.Dial,
		Others: w.others,
		Watch:  l.watch,
		Log:    w.log,
	})
	if err := l.session.SetPrimary(ctx, !w.secondary); err != nil {
		w.t.Fatal(err)
	}
	go func() { l.ended <- l.session.Run(ctx) }()
	l.leave = sync.OnceFunc(func() {
		cancel()
		if err := <-l.ended; err != nil {
			w.t.Errorf("the session ended: %v", err)
		}
	})
	w.t.Cleanup(func() { l.leave(); _ = l.wire.Close() })
	return l
}

func (l *laptop) watch(ctx context.Context) <-chan netwatch.Event {
	out := make(chan netwatch.Event)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-l.news:
				out <- e
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// told says whether there was an event with these words.
func (l *laptop) told(kind localapi.EventType, words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e localapi.Event) bool { return e.Type == kind && strings.Contains(e.Text, words) })
}

// hears waits for an event with these words.
func (l *laptop) hears(kind localapi.EventType, words string) {
	l.t.Helper()
	l.within(2*time.Second, "told of "+words, func() bool { return l.told(kind, words) })
}

func (l *laptop) status() localapi.Connection {
	c, _ := l.session.Status()
	return c
}

func (l *laptop) within(limit time.Duration, what string, holds func() bool) {
	l.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, e := range l.events {
				l.t.Logf("%s %s %s %v", e.Type, e.Phase, e.Text, e.Error)
			}
			c, warnings := l.session.Status()
			l.t.Fatalf("not %s within %v: path %+v, gateway %+v, lease %+v, warnings %v", what, limit, c.Path, c.Gateway, c.Lease, warnings)
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

// open looks a name up, makes a new flow and tries it. It asks by itself: Go's
// resolver goes on for 5 s after everybody has given up on it, and would still
// do so when the test is over.
func (l *laptop) open() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	to, err := l.lookup(ctx, town.EchoName)
	if err != nil {
		return nil, err
	}
	c, err := l.host.Dial(ctx, "tcp", netip.AddrPortFrom(to, 5432).String())
	if err != nil {
		return nil, err
	}
	return c, echo(c, time.Second)
}

func (l *laptop) lookup(ctx context.Context, name string) (netip.Addr, error) {
	listen := l.status().DNS.Listen
	if len(listen) == 0 {
		return netip.Addr{}, errors.New("nobody answers DNS")
	}
	c, err := l.host.Dial(ctx, "udp", listen[0])
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	d := dns.Conn{Conn: c}
	if err := d.WriteMsg(new(dns.Msg).SetQuestion(name+".", dns.TypeA)); err != nil {
		return netip.Addr{}, err
	}
	m, err := d.ReadMsg()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address: %v", m)
}

func (l *laptop) works() bool {
	c, err := l.open()
	if c != nil {
		_ = c.Close()
	}
	return err == nil
}

func echo(c net.Conn, limit time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}
