package policy

import (
	"net/netip"
	"testing"
)

func TestAlone(t *testing.T) {
	peer, stranger := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.3")
	ours, theirs, unknown := netip.MustParseAddr("10.244.0.17"), netip.MustParseAddr("10.244.0.18"), netip.MustParseAddr("10.244.0.19")
	node, self := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("10.244.0.5")
	asked := map[netip.Addr]int{}
	p := NewAlone(Config{Tunnel: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16")}, Self: []netip.Addr{node, self}},
		func(_, a netip.Addr) (bool, bool) { asked[a]++; return a != theirs && a != unknown, a != unknown })
	if p.Allow(peer, TCP, netip.AddrPortFrom(ours, 80)) {
		t.Error("somebody is let in before anybody was admitted")
	}
	p.SetPeers([]netip.Addr{peer})
	for _, c := range []struct {
		name             string
		peer             netip.Addr
		proto            Proto
		to               netip.AddrPort
		allow, undecided bool
	}{
		{"a pod of the namespace", peer, TCP, netip.AddrPortFrom(ours, 80), true, false},
		{"its ping", peer, ICMP, netip.AddrPortFrom(ours, 0), true, false},
		{"its UDP", peer, UDP, netip.AddrPortFrom(ours, 10250), true, false},
		{"the same as IPv4 in IPv6", peer, TCP, netip.AddrPortFrom(netip.AddrFrom16(ours.As16()), 80), true, false},
		{"by a stranger", stranger, TCP, netip.AddrPortFrom(ours, 80), false, false},
		{"another namespace's", peer, TCP, netip.AddrPortFrom(theirs, 80), false, false},
		{"one that nobody knows yet", peer, TCP, netip.AddrPortFrom(unknown, 80), false, true},
		{"and a stranger asks", stranger, TCP, netip.AddrPortFrom(unknown, 80), false, false},
		{"kubelet's port", peer, TCP, netip.AddrPortFrom(ours, 10250), false, false},
		{"the node", peer, TCP, netip.AddrPortFrom(node, 22), false, false},
		{"the gateway", peer, TCP, netip.AddrPortFrom(self, 8081), false, false},
		{"another peer", peer, TCP, netip.AddrPortFrom(stranger, 22), false, false},
		{"metadata", peer, TCP, netip.MustParseAddrPort("169.254.169.254:80"), false, false},
		{"metadata over IPv6", peer, TCP, netip.MustParseAddrPort("[fd00:ec2::254]:80"), false, false},
		{"loopback", peer, TCP, netip.MustParseAddrPort("127.0.0.1:80"), false, false},
	} {
		if got := p.Allow(c.peer, c.proto, c.to); got != c.allow {
			t.Errorf("%s: allowed %v", c.name, got)
		}
		if got := p.Undecided(c.peer, c.proto, c.to); got != c.undecided {
			t.Errorf("%s: undecided %v", c.name, got)
		}
	}
	if asked[node]+asked[self]+asked[stranger] > 0 {
		t.Errorf("somebody was asked about what nobody may reach: %v", asked)
	}
}
