package packet

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
)

// Unreachable says why a packet was not delivered, in a way that both
// families' ICMP can express.
type Unreachable uint8

const (
	NoNetwork  Unreachable = iota // no route to the network
	NoHost                        // the host does not answer
	NoPort                        // nothing listens there
	NoProtocol                    // the protocol is not carried here
	Prohibited                    // policy says no
)

// codes4 and codes6 are ICMP codes of type 3 (RFC 792, RFC 1812 5.2.7.1) and
// of ICMPv6 type 1 (RFC 4443 3.1). ICMPv6 speaks of protocols elsewhere
// (type 4), so NoProtocol is Prohibited there.
var (
	codes4 = [...]byte{NoNetwork: 0, NoHost: 1, NoPort: 3, NoProtocol: 2, Prohibited: 13}
	codes6 = [...]byte{NoNetwork: 0, NoHost: 3, NoPort: 4, NoProtocol: 1, Prohibited: 1}
)

// Largest error packets: RFC 1812 4.3.2.3 and RFC 4443 2.4(c).
const (
	maxError4 = 576
	maxError6 = 1280
)

// ipID numbers the IPv4 packets built here, so that their fragments can be
// told apart (RFC 6864).
var ipID atomic.Uint32

// HeaderIP is the length of the IP header that the Put functions write for
// packets between addresses of a's family.
func HeaderIP(a netip.Addr) int {
	if a.Is4() {
		return header4
	}
	return header6
}

// PutIP writes an IP header over the first HeaderIP(src) bytes of b, the
// whole packet. src and dst must be of one family.
func PutIP(b []byte, proto uint8, src, dst netip.Addr) {
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		b[0], b[1] = 0x45, 0
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], uint16(ipID.Add(1)))
		b[6], b[7] = 0, 0
		b[8], b[9] = defaultTTL, proto
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		putHeaderSum(b)
		return
	}
	s, d := src.As16(), dst.As16()
	b[0], b[1], b[2], b[3] = 0x60, 0, 0, 0
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header6))
	b[6], b[7] = proto, defaultTTL
	copy(b[8:], s[:])
	copy(b[24:], d[:])
}

// putHeaderSum sets the checksum of the IPv4 header at the start of b.
func putHeaderSum(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^Sum(b[:int(b[0]&0x0f)*4], 0))
}

// PutUDP writes the IP and UDP headers of b, a whole packet whose payload is
// already in place behind HeaderIP+HeaderUDP bytes.
func PutUDP(b []byte, src, dst netip.AddrPort) {
	PutIP(b, UDP, src.Addr(), dst.Addr())
	u := b[HeaderIP(src.Addr()):]
	binary.BigEndian.PutUint16(u, src.Port())
	binary.BigEndian.PutUint16(u[2:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	u[6], u[7] = 0, 0
	sum := ^Sum(u, addrPseudoSum(UDP, src.Addr(), dst.Addr(), len(u)))
	if sum == 0 {
		sum = 0xffff // zero means "not computed" (RFC 768)
	}
	binary.BigEndian.PutUint16(u[6:], sum)
}

// PutEchoReply writes the IP and ICMP headers of an echo reply around the
// payload that already stands behind HeaderIP+HeaderEcho bytes of b.
func PutEchoReply(b []byte, src, dst netip.Addr, id, seq uint16) {
	putEcho(b, src, dst, id, seq, 0, 129)
}

// PutEchoRequest is PutEchoReply for a request.
func PutEchoRequest(b []byte, src, dst netip.Addr, id, seq uint16) {
	putEcho(b, src, dst, id, seq, 8, 128)
}

func putEcho(b []byte, src, dst netip.Addr, id, seq uint16, type4, type6 byte) {
	c := b[HeaderIP(src):]
	c[1] = 0
	binary.BigEndian.PutUint16(c[4:], id)
	binary.BigEndian.PutUint16(c[6:], seq)
	if src.Is4() {
		c[0] = type4
	} else {
		c[0] = type6
	}
	putICMP(b, src, dst)
}

// putICMP writes the IP header and the ICMP checksum of b.
func putICMP(b []byte, src, dst netip.Addr) {
	hl := HeaderIP(src)
	c := b[hl:]
	c[2], c[3] = 0, 0
	if src.Is4() {
		PutIP(b, ICMP, src, dst)
		binary.BigEndian.PutUint16(c[2:], ^Sum(c, 0))
		return
	}
	PutIP(b, ICMP6, src, dst)
	binary.BigEndian.PutUint16(c[2:], ^Sum(c, addrPseudoSum(ICMP6, src, dst, len(c))))
}

// UnreachableSize is the length of the error that PutUnreachable writes about
// original.
func UnreachableSize(original []byte) int {
	if original[0]>>4 == 6 {
		return min(header6+8+len(original), maxError6)
	}
	return min(header4+8+len(original), maxError4)
}

// PutUnreachable writes into b, UnreachableSize(original) bytes, an ICMP
// error about original, a whole packet that Parse accepted. The error comes
// from original's destination: every sender that could send there accepts
// packets from there, and WireGuard's allowed IPs let no others pass.
func PutUnreachable(b, original []byte, why Unreachable) {
	if original[0]>>4 == 6 {
		c := b[header6:]
		c[0], c[1] = 1, codes6[why]
		clear(c[4:8])
		copy(c[8:], original)
		putICMP(b, netip.AddrFrom16([16]byte(original[24:40])), netip.AddrFrom16([16]byte(original[8:24])))
		return
	}
	c := b[header4:]
	c[0], c[1] = 3, codes4[why]
	clear(c[4:8])
	copy(c[8:], original)
	putICMP(b, netip.AddrFrom4([4]byte(original[16:20])), netip.AddrFrom4([4]byte(original[12:16])))
}

// AboutTCP reports whether p is an ICMP error that quotes a TCP packet.
func AboutTCP(p *Packet) bool {
	b := quoted(p)
	if b == nil {
		return false
	}
	return p.Is6() && b[6] == TCP || !p.Is6() && b[9] == TCP
}

// Intended is where a packet went about which p, an ICMP error, tells; the zero Addr:
// it quotes none.
func Intended(p *Packet) netip.Addr {
	b := quoted(p)
	switch {
	case b == nil:
		return netip.Addr{}
	case p.Is6():
		return netip.AddrFrom16([16]byte(b[24:40]))
	}
	return netip.AddrFrom4([4]byte(b[16:20]))
}

// quoted is what p, an ICMP error, quotes, an IP header at least; nil: nothing.
func quoted(p *Packet) []byte {
	const before = 8
	b := p.Payload()
	if !p.Err() || len(b) < before+HeaderIP(p.Src) {
		return nil
	}
	return b[before:]
}

// RelaxUnreachable turns the ICMPv6 "unreachable" codes of p that gVisor
// ignores, "address unreachable" and "prohibited" among them, into "no route",
// so that a dial fails at once instead of timing out.
func RelaxUnreachable(p *Packet) {
	b := p.Payload()
	if !p.Is6() || len(b) < 8 || b[0] != 1 || b[1] == 0 || b[1] == codes6[NoPort] {
		return
	}
	b[1], b[2], b[3] = 0, 0, 0
	binary.BigEndian.PutUint16(b[2:], ^Sum(b, addrPseudoSum(ICMP6, p.Src, p.Dst, len(b))))
}
