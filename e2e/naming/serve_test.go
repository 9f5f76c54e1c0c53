package naming

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"podnet.dev/dnsproxy"
	"podnet.dev/dnsproxy/kube"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/testport"
)

// TestMain makes the test binary a server of the zone when its first argument
// says so.
func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	if len(os.Args) == 3 && os.Args[1] == "zone" {
		if err := zoneRole(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// place is where a zone comes from and is served.
type place struct {
	Host, Token, Domain string
	Upstream            netip.AddrPort // the cluster's own DNS server, or zero
	Listen              netip.AddrPort
}

// zoneRole serves the zone of the place in a file, until it is killed.
func zoneRole(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var p place
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	packets, l, err := testport.Both(p.Listen.String())
	if err != nil {
		return err
	}
	_, run, err := newZone(p, packets, l)
	if err != nil {
		return err
	}
	return run(context.Background())
}

// newZone is the zone as the gateway has it, where everybody may see all. run
// answers on the two sockets until ctx ends.
func newZone(p place, packets net.PacketConn, l net.Listener) (z *kube.Zone, run func(ctx context.Context) error, err error) {
	objects, err := cache.New(&rest.Config{Host: p.Host, BearerToken: p.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, cache.Options{Scheme: apiserver.Scheme()})
	if err != nil {
		return nil, nil, err
	}
	config := kube.Config{
		Domain: p.Domain, Informers: objects, Visible: func(netip.Addr, string) bool { return true },
		Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
	}
	forwarder := dnsproxy.NewForwarder(dnsproxy.ForwarderConfig{Servers: []netip.AddrPort{p.Upstream}})
	if p.Upstream.IsValid() {
		config.Upstream = dnsproxy.NewCache(forwarder)
	}
	z = kube.New(config)
	return z, func(ctx context.Context) error {
		defer forwarder.Close()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return objects.Start(ctx) })
		g.Go(func() error { return z.Run(ctx) })
		g.Go(func() error {
			return dnsproxy.NewServer(z, dnsproxy.Options{}).Serve(ctx, []net.PacketConn{packets}, []net.Listener{l})
		})
		return g.Wait()
	}, nil
}

// serveZone serves the zone as the gateway does, on loopback. upstream is the
// cluster's own DNS server, or zero.
func serveZone(t testing.TB, s *apiserver.Server, domain string, upstream netip.AddrPort) netip.AddrPort {
	t.Helper()
	packets, l, err := testport.Both("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z, run, err := newZone(place{Host: s.Config().Host, Token: s.Config().BearerToken, Domain: domain, Upstream: upstream}, packets, l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	apiserver.Eventually(t, 20*time.Second, "the zone knows the cluster", func() error {
		if !z.Synced() {
			return fmt.Errorf("%d Services", z.Services())
		}
		return nil
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// serveZoneElsewhere is serveZone in a process of its own, as every other server
// that it is measured beside has one.
func serveZoneElsewhere(b *testing.B, s *apiserver.Server, domain string, upstream netip.AddrPort) netip.AddrPort {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := place{Host: s.Config().Host, Token: s.Config().BearerToken, Domain: domain, Upstream: upstream, Listen: freeAddr(b)}
	text, err := json.Marshal(p)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "place")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	apiserver.Run(b, self, "zone", file)
	return p.Listen
}

// freeAddr is an address of loopback with a port that nobody has.
func freeAddr(b *testing.B) netip.AddrPort {
	b.Helper()
	packets, l, err := testport.Both("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer packets.Close()
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
