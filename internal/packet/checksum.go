package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum adds b to the Internet checksum sum (RFC 1071), in whole 16-bit words:
// all but the last piece of a packet must have even length. It works on eight
// bytes at a time, and in the wrong byte order until the end, because the sum of
// ones' complement minds neither: a byte swap per load would halve the speed.
func Sum(b []byte, sum uint16) uint16 {
	acc, carry := uint64(bits.ReverseBytes16(sum)), uint64(0)
	for len(b) >= 128 {
		p := (*[128]byte)(b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[0:]), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[56:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[64:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[72:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[80:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[88:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[96:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[104:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[112:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[120:]), carry)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[128:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(last[:]), 0)
		acc += carry
	}
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return bits.ReverseBytes16(uint16(acc))
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
