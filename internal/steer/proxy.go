package steer

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// AppendProxyHeader appends version 2 of HAProxy's PROXY protocol
// (proxy-protocol.txt, section 2.2), which says that a connection came from one
// address to another: its "unspecified" form where one is not of TCP/IP.
func AppendProxyHeader(b []byte, from, to net.Addr) []byte {
	const (
		proxied = 0x21 // version 2, command PROXY
		unspec  = 0x00
		tcp4    = 0x11
		tcp6    = 0x21
	)
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n"...)
	src, ok1 := TCPAddr(from)
	dst, ok2 := TCPAddr(to)
	if !ok1 || !ok2 {
		return append(b, proxied, unspec, 0, 0)
	}
	if src.Addr().Is4() && dst.Addr().Is4() {
		b = append(b, proxied, tcp4, 0, 2*4+2*2)
		b = append(b, src.Addr().AsSlice()...)
		b = append(b, dst.Addr().AsSlice()...)
	} else {
		b = append(b, proxied, tcp6, 0, 2*16+2*2)
		src, dst := src.Addr().As16(), dst.Addr().As16()
		b = append(append(b, src[:]...), dst[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

// TCPAddr is the address and port of a, IPv4 as such and without a zone; false
// if a is not of TCP/IP.
func TCPAddr(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), ap.IsValid()
}
