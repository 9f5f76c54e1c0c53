package standalone

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/wgconf"
)

func TestPolicy(t *testing.T) {
	p := newPolicy([]wgconf.Peer{
		{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/32"), netip.MustParsePrefix("fd99::2/128")}},
		{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.7.0/24")}},
	})
	for _, c := range []struct {
		dst  string
		want bool
	}{
		{"10.96.0.10:443", true},
		{"[2001:db8::1]:53", true},
		{"10.99.0.2:22", false},       // a peer
		{"10.99.7.200:22", false},     // behind a peer
		{"[fd99::2]:22", false},       //
		{"[fd00:ec2::254]:80", false}, // metadata
		{"[fd20:ce::254]:80", false},
		{"100.100.100.200:80", false},
		{"192.0.0.192:80", false},
		{"168.63.129.16:80", false},
		{"127.0.0.1:8081", false}, // the host, by whatever name
	} {
		if got := p.Allow(netip.MustParseAddr("10.99.0.2"), forward.TCP, netip.MustParseAddrPort(c.dst)); got != c.want {
			t.Errorf("allow %s: %v", c.dst, got)
		}
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"no key", "[Interface]\nListenPort = 1\n", "PrivateKey"},
		{"bad endpoint", "[Interface]\nPrivateKey = " + privateText(t) + "\n[Peer]\nPublicKey = " + k.Public().String() + "\nEndpoint = nowhere\n", "line 5"},
	} {
		file := filepath.Join(t.TempDir(), "wg.conf")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), Options{ConfigFile: file})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want a word on %s", c.name, err, c.want)
		}
	}
	if err := Run(t.Context(), Options{ConfigFile: "/nonexistent"}); err == nil {
		t.Error("a file that does not exist was read")
	}
}

// privateText is a private key as a file has it; only tests write one.
func privateText(t *testing.T) string {
	t.Helper()
	return "4GgaQCy68nzNsyO3mLcaRUcPzlvpLWVCUz1vyS9lkkA="
}

// podnet's own clients prove a path before they use it, here as well.
func TestProbesOfPeersAreAnswered(t *testing.T) {
	private := func() key.Private {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	gateway, friend, stranger := private(), private(), private()
	g, err := newGateway(t.Context(), wgconf.Config{PrivateKey: gateway, Peers: []wgconf.Peer{
		{PublicKey: friend.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/32")}},
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.close() })
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), g.tunnel.ListenPort())
	reach := func(who key.Private, limit time.Duration) error {
		bind := transport.NewBind(transport.Options{})
		stack, err := netstack.New(netstack.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer stack.Close()
		tun, err := tunnel.New(stack.Device(), bind, tunnel.Config{PrivateKey: who})
		if err != nil {
			t.Fatal(err)
		}
		defer tun.Close()
		k, err := probe.NewKey(who, gateway.Public())
		if err != nil {
			t.Fatal(err)
		}
		path := bind.NewGateway(transport.GatewayConfig{Key: k})
		defer path.Close()
		path.SetUDP([]netip.AddrPort{at})
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return path.Wait(ctx)
	}
	if err := reach(friend, 5*time.Second); err != nil {
		t.Errorf("a peer: %v", err)
	}
	if err := reach(stranger, 500*time.Millisecond); err == nil {
		t.Error("a stranger is answered")
	}
}
