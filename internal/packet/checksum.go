package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum adds b to the Internet checksum sum (RFC 1071), in whole 16-bit words:
// all but the last piece of a packet must have even length. It works on eight
// bytes at a time because the sum of ones' complement does not mind.
func Sum(b []byte, sum uint16) uint16 {
	acc, carry := uint64(sum), uint64(0)
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[56:]), carry)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(last[:]), 0)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
	}
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// PseudoSum is the checksum of the pseudo header that TCP, UDP and ICMPv6
// cover (RFC 768, RFC 8200 8.1). src and dst are 4 or 16 bytes each.
func PseudoSum(proto uint8, src, dst []byte, length int) uint16 {
	var tail [4]byte
	binary.BigEndian.PutUint16(tail[:], uint16(length))
	tail[3] = proto
	return Sum(tail[:], Sum(dst, Sum(src, 0)))
}

func addrPseudoSum(proto uint8, src, dst netip.Addr, length int) uint16 {
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		return PseudoSum(proto, s[:], d[:], length)
	}
	s, d := src.As16(), dst.As16()
	return PseudoSum(proto, s[:], d[:], length)
}
