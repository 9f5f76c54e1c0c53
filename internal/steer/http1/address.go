package http1

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// forwardedFor returns a head with one more X-Forwarded-For field behind all
// others: the last one names who spoke to us.
func forwardedFor(head []byte, client net.Addr) []byte {
	addr, ok := addrPort(client)
	if !ok {
		return head
	}
	return insertField(head, len(head)-len("\r\n"), "X-Forwarded-For", addr.Addr().String())
}

// insertAfterLine returns a head with one more field behind its first line.
func insertAfterLine(head []byte, name, value string) []byte {
	return insertField(head, bytes.IndexByte(head, '\n')+1, name, value)
}

func insertField(head []byte, at int, name, value string) []byte {
	return slices.Concat(head[:at], []byte(name+": "+value+"\r\n"), head[at:])
}

// proxyHeader is version 2 of HAProxy's PROXY protocol (proxy-protocol.txt,
// section 2.2), or its "unspecified" form where an address is not one of TCP/IP.
func proxyHeader(from, to net.Addr) []byte {
	const (
		proxied = 0x21 // version 2, command PROXY
		unspec  = 0x00
		tcp4    = 0x11
		tcp6    = 0x21
	)
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	src, ok1 := addrPort(from)
	dst, ok2 := addrPort(to)
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

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), ap.IsValid()
}
