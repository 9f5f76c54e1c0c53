package http2

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// appendProxyHeader appends a PROXY protocol v2 header that says that a
// connection came from src to dst. Where they are no TCP addresses of one family
// it says that the connection is our own.
func appendProxyHeader(b []byte, src, dst net.Addr) []byte {
	const (
		own, proxied = 0x20, 0x21
		tcp4, tcp6   = 0x11, 0x21
	)
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n"...)
	from, to := addrPort(src), addrPort(dst)
	if !from.IsValid() || !to.IsValid() || from.Addr().Is4() != to.Addr().Is4() {
		return append(b, own, 0, 0, 0)
	}
	family := byte(tcp4)
	if from.Addr().Is6() {
		family = tcp6
	}
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	b = append(b, proxied, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+4))
	b = append(b, addresses...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
