package addressing

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
)

// shared is the range between a provider's NAT and its customers (RFC 6598). Hardly
// a laptop and no company has networks there.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// private are the ranges for virtual IPv4 addresses, in this order (RFC 1918 and
// above), reserved the one for what finds no room there (RFC 1112). Its last /8 has
// the broadcast address.
var (
	private = []netip.Prefix{
		shared,
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
	reserved  = netip.MustParsePrefix("240.0.0.0/4")
	broadcast = netip.MustParsePrefix("255.0.0.0/8")
)

// space is where a virtual prefix may be: in the ranges for them, but for what is
// taken.
type space struct {
	seed  [sha256.Size]byte // the cluster's
	pools []netip.Prefix
	taken []netip.Prefix
}

func (w Wish) space() *space {
	s := &space{seed: sha256.Sum256([]byte(w.Cluster)), pools: slices.Clone(private), taken: append(slices.Clone(w.Prefixes), broadcast)}
	if w.Reserved {
		s.pools = append(s.pools, reserved)
	}
	// A unique local prefix is 40 bits of chance after fd00::/8 (RFC 4193); fewer,
	// for a cluster that has more than a /48.
	ula := [16]byte{0xfd}
	copy(ula[1:6], s.seed[:])
	for _, bits := range []int{48, 40, 32, 24} {
		s.pools = append(s.pools, netip.PrefixFrom(netip.AddrFrom16(ula), bits).Masked())
	}
	for _, n := range w.Taken {
		s.taken = append(s.taken, n.Prefix)
	}
	return s
}

// guard keeps new prefixes away from where the laptop may meet others than it has
// now: whoever has an interface in the shared range, by a provider or by a VPN such
// as Tailscale, has peers all over it. It also keeps them from the addresses that
// the laptop reaches outside of the tunnel.
func (s *space) guard(w Wish) {
	for _, n := range w.Taken {
		if n.Interface != "" && n.Prefix.Overlaps(shared) {
			s.taken = append(s.taken, shared)
		}
	}
	for _, a := range w.Avoid {
		s.taken = append(s.taken, netip.PrefixFrom(a, a.BitLen()))
	}
}

func (s *space) overlaps(p netip.Prefix) bool { return slices.ContainsFunc(s.taken, p.Overlaps) }

// place finds a free prefix of p's family and length, and takes it.
func (s *space) place(p netip.Prefix) (netip.Prefix, bool) {
	for _, pool := range s.pools {
		if pool.Addr().Is4() != p.Addr().Is4() || pool.Bits() > p.Bits() || slices.ContainsFunc(s.taken, func(t netip.Prefix) bool { return contains(t, pool) }) {
			continue
		}
		slots := uint64(1) << (p.Bits() - pool.Bits())
		first := binary.BigEndian.Uint64(s.seed[:]) % slots
		for i := range slots {
			if v := slot(pool, p.Bits(), (first+i)%slots); !s.overlaps(v) {
				s.taken = append(s.taken, v)
				return v, true
			}
		}
	}
	return netip.Prefix{}, false
}

// slot is the i-th prefix of a length inside a pool.
func slot(pool netip.Prefix, bits int, i uint64) netip.Prefix {
	a := pool.Addr().AsSlice()
	for bit := bits - 1; i > 0; bit, i = bit-1, i>>1 {
		a[bit/8] |= byte(i&1) << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(addr, bits)
}
