// Package packet reads and writes IP packets as bytes: what a peer sends, and
// the UDP, ICMP echo and ICMP error packets that answer it. It is pure: no
// sockets, no clock, and it knows nothing of gVisor.
package packet

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers (IANA) that podnet tells apart.
const (
	ICMP     = 1
	TCP      = 6
	UDP      = 17
	ICMP6    = 58
	hopByHop = 0
	routing  = 43
	fragment = 44
	destOpts = 60
)

const (
	header4 = 20 // IPv4 header without options
	header6 = 40 // IPv6 header without extensions
	// HeaderUDP and HeaderEcho are the lengths of a UDP and of an ICMP echo header.
	HeaderUDP  = 8
	HeaderEcho = 8

	defaultTTL = 64

	// MaxSize is the largest IPv4 packet, and the largest IPv6 packet that
	// podnet handles (RFC 791; jumbograms are refused).
	MaxSize = 65535

	// maxExtensions bounds the walk through IPv6 extension headers.
	maxExtensions = 8
)

// Packet is a checked view into one IP packet: all lengths are inside Data.
type Packet struct {
	Data     []byte // from the IP header to the end the header states
	Src, Dst netip.Addr
	Proto    uint8 // of the transport header; 44 never appears
	L4       int   // where the transport header starts in Data

	// Of a fragment: its place in the original and what ties it together.
	Fragment bool
	More     bool // another fragment follows
	Offset   int  // in bytes
	ID       uint32

	fragHeader int // IPv6: where the fragment header is
	fragNext   int // IPv6: where the Next Header byte that says 44 is
}

// Parse checks b, one whole IP packet, and describes it. Bytes after the
// stated length (WireGuard's padding) are cut off. Checksums are not looked
// at: what comes out of the tunnel was authenticated.
func Parse(b []byte) (Packet, bool) {
	if len(b) == 0 {
		return Packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Packet{}, false
}

func parse4(b []byte) (p Packet, ok bool) {
	if len(b) < header4 {
		return p, false
	}
	hl := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if hl < header4 || total < hl || total > len(b) {
		return p, false
	}
	frag := binary.BigEndian.Uint16(b[6:])
	p = Packet{
		Data:   b[:total:total],
		Src:    netip.AddrFrom4([4]byte(b[12:16])),
		Dst:    netip.AddrFrom4([4]byte(b[16:20])),
		Proto:  b[9],
		L4:     hl,
		More:   frag&0x2000 != 0,
		Offset: int(frag&0x1fff) * 8,
		ID:     uint32(binary.BigEndian.Uint16(b[4:])),
	}
	p.Fragment = p.More || p.Offset != 0
	if p.Offset+total-hl > MaxSize {
		return Packet{}, false // the "ping of death"
	}
	return p, true
}

func parse6(b []byte) (p Packet, ok bool) {
	if len(b) < header6 {
		return p, false
	}
	total := header6 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) || total > MaxSize {
		return p, false
	}
	p = Packet{
		Data: b[:total:total],
		Src:  netip.AddrFrom16([16]byte(b[8:24])),
		Dst:  netip.AddrFrom16([16]byte(b[24:40])),
	}
	if p.Src.Is4In6() || p.Dst.Is4In6() {
		return Packet{}, false // ::ffff:0:0/96 never belongs on a wire (RFC 4942, 2.2)
	}
	next, nextAt, at := b[6], 6, header6
	for range maxExtensions {
		switch next {
		case hopByHop, routing, destOpts:
			if at+8 > total {
				return Packet{}, false
			}
			next, nextAt, at = b[at], at, at+8+8*int(b[at+1])
			if at > total {
				return Packet{}, false
			}
			continue
		case fragment:
			if at+8 > total || p.Fragment {
				return Packet{}, false
			}
			field := binary.BigEndian.Uint16(b[at+2:])
			p.Fragment = true
			p.More = field&1 != 0
			p.Offset = int(field &^ 7)
			p.ID = binary.BigEndian.Uint32(b[at+4:])
			p.fragHeader, p.fragNext = at, nextAt
			p.Proto, p.L4 = b[at], at+8
			if p.Offset+total-p.L4 > MaxSize {
				return Packet{}, false
			}
			return p, true // what follows a fragment header is cut arbitrarily
		}
		p.Proto, p.L4 = next, at
		return p, true
	}
	return Packet{}, false
}

// Payload is the packet from its transport header on.
func (p *Packet) Payload() []byte { return p.Data[p.L4:] }

// Is6 reports whether it is an IPv6 packet.
func (p *Packet) Is6() bool { return p.Data[0]>>4 == 6 }

// Ports returns the ports of a TCP or UDP packet; ok is false when the packet
// is too short to have any.
func (p *Packet) Ports() (src, dst netip.AddrPort, ok bool) {
	b := p.Payload()
	if len(b) < 4 {
		return src, dst, false
	}
	return netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(b)),
		netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(b[2:])), true
}

// UDP returns what a UDP packet carries; ok is false when its lengths lie.
func (p *Packet) UDP() (payload []byte, ok bool) {
	b := p.Payload()
	if len(b) < HeaderUDP {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < HeaderUDP || n > len(b) {
		return nil, false
	}
	return b[HeaderUDP:n], true
}

// SYN reports whether it is a TCP packet that opens a connection: SYN without
// ACK, with a header that is whole.
func (p *Packet) SYN() bool {
	b := p.Payload()
	return p.Proto == TCP && len(b) >= 20 && b[13]&0x17 == 0x02
}

// Echo describes an ICMP echo request of either family.
func (p *Packet) Echo() (id, seq uint16, payload []byte, ok bool) {
	b := p.Payload()
	if len(b) < HeaderEcho || b[1] != 0 {
		return 0, 0, nil, false
	}
	if !(p.Proto == ICMP && !p.Is6() && b[0] == 8) && !(p.Proto == ICMP6 && p.Is6() && b[0] == 128) {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), b[HeaderEcho:], true
}

// Err reports whether it is an ICMP error, about which no error may be sent
// (RFC 1122, 3.2.2).
func (p *Packet) Err() bool {
	b := p.Payload()
	switch {
	case len(b) == 0:
		return false
	case p.Proto == ICMP && !p.Is6():
		return b[0] == 3 || b[0] == 4 || b[0] == 5 || b[0] == 11 || b[0] == 12
	case p.Proto == ICMP6 && p.Is6():
		return b[0] < 128
	}
	return false
}
