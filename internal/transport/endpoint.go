package transport

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Addresses that exist only inside a Bind. WireGuard names, limits and gives
// cookies to endpoints by address, so every stream and every Gateway has one of
// its own. They lie beside the tunnel addresses (key.Prefix6) in podnet's
// range and never occur in a packet.
var (
	streamPrefix  = netip.MustParsePrefix("fd70:6f64:6e65:7401::/64")
	gatewayPrefix = netip.MustParsePrefix("fd70:6f64:6e65:7402::/64")
)

// EndpointKind is the kind of path that a gateway's peer uses, by the endpoint
// that tunnel.Stats gives for it: a stream's synthetic address, or a real one.
// It is "" when s is no endpoint or a laptop's Gateway, whose Status knows.
func EndpointKind(s string) Kind {
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil || gatewayPrefix.Contains(ap.Addr()):
		return ""
	case streamPrefix.Contains(ap.Addr()):
		return APIServer
	}
	return UDP
}

// syntheticPort is the port of all of them; it has no meaning.
const syntheticPort = 51820

func synthetic(p netip.Prefix, id uint64) netip.AddrPort {
	a := p.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], id)
	return netip.AddrPortFrom(netip.AddrFrom16(a), syntheticPort)
}

// address is the destination half of a conn.Endpoint.
type address struct{ dst netip.AddrPort }

func (a address) DstToString() string { return a.dst.String() }
func (a address) DstIP() netip.Addr   { return a.dst.Addr() }
func (a address) DstToBytes() []byte  { b, _ := a.dst.MarshalBinary(); return b }

// sourceless is the source half of endpoints whose source is no choice of ours.
type sourceless struct{}

func (sourceless) ClearSrc()           {}
func (sourceless) SrcToString() string { return "" }
func (sourceless) SrcIP() netip.Addr   { return netip.Addr{} }

// udpEndpoint is where datagrams go by UDP: a peer's address, and ours that it
// wrote to. A host with several addresses must answer from that one, or NATs
// and firewalls on the way drop the answer.
type udpEndpoint struct {
	address
	src   netip.Addr  // invalid: the kernel chooses
	noSrc atomic.Bool // src is no longer to be used
	way   *udpWay     // a laptop's that probes; nil: nobody's of whom we know
	udpRoute
}

func (e *udpEndpoint) ClearSrc() { e.noSrc.Store(true) }

func (e *udpEndpoint) SrcIP() netip.Addr {
	if e.noSrc.Load() {
		return netip.Addr{}
	}
	return e.src
}

func (e *udpEndpoint) SrcToString() string {
	if a := e.SrcIP(); a.IsValid() {
		return a.String()
	}
	return ""
}

// streamEndpoint is a stream that a peer has opened to us. When the stream ends
// the endpoint leads nowhere, until the peer's next packet replaces it.
type streamEndpoint struct {
	address
	sourceless
	c *carrier
}

// origin is what the Bind makes of the sender of a UDP datagram.
type origin struct {
	ep     conn.Endpoint
	rx     *atomic.Uint64 // counts bytes of the path; nil: nobody does
	pieces bool           // it has proved who it is, and may send pieces of datagrams
	drop   bool
}

func (o *origin) count(n int) {
	if o.rx != nil {
		o.rx.Add(uint64(n))
	}
}

type originKey struct {
	from netip.AddrPort
	to   netip.Addr // our address
}

// maxOrigins bounds an originCache: strangers can make entries.
const maxOrigins = 4096

// originCache spares an allocation per datagram. One receiver owns it.
type originCache struct {
	epoch uint64
	m     map[originKey]origin
}

// lookup is the origin of a datagram, asked of b when it is new, when the
// Bind's gateways have changed, or when the device has disowned the cached
// endpoint's source address.
func (c *originCache) lookup(b *Bind, k originKey) origin {
	if e := b.epoch.Load(); e != c.epoch || len(c.m) >= maxOrigins {
		clear(c.m)
		c.epoch = e
	}
	o, ok := c.m[k]
	if u, udp := o.ep.(*udpEndpoint); ok && !(udp && u.noSrc.Load()) {
		return o
	}
	if c.m == nil {
		c.m = map[originKey]origin{}
	}
	o = b.origin(k)
	c.m[k] = o
	return o
}
