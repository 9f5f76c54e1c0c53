package userspace

import (
	"errors"
	"net/netip"
	"testing"

	"podnet.dev/client/router"
)

// TestNobodysNetworks: a gateway that publishes the whole world, this machine's loopback or
// the cloud's metadata as the cluster's gets as little of it here as of the kernel's router.
func TestNobodysNetworks(t *testing.T) {
	h := New(Config{})
	defer h.Close()
	if _, err := h.TUN(1420); err != nil {
		t.Fatal(err)
	}
	own := []netip.Prefix{netip.MustParsePrefix("198.18.0.5/32")}
	for _, route := range []string{"0.0.0.0/0", "8.0.0.0/7", "127.0.0.0/8", "169.254.169.254/32", "169.0.0.0/8", "::/0", "::1/128", "fe80::/64"} {
		p := netip.MustParsePrefix(route)
		var invalid *router.InvalidError
		if err := h.SetNetwork(router.Config{Addresses: own, Routes: []netip.Prefix{p}}); !errors.As(err, &invalid) || h.Routed(p.Addr()) {
			t.Errorf("%s: %v, and it is routed %v", route, err, h.Routed(p.Addr()))
		}
	}
}
