package netstack

import (
	"encoding/binary"

	"podnet.dev/internal/packet"
)

const (
	tcpFIN = 0x01
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
)

// segmenter cuts one large TCP packet into segments. It keeps its place, so
// that a packet may be spread over several reads.
type segmenter struct {
	header [120]byte // IP and TCP header of the whole
	ip, hl int       // length of the IP header, of both
	mss    int
	push   bool // the last segment keeps PSH

	slices [][]byte // what remains of the payload
	left   int      // bytes in slices
	seq    uint32
	id     uint16
}

// load prepares segments of up to mss bytes out of the payload slices. header
// is the IPv4 or IPv6 header without options plus the TCP header.
func (s *segmenter) load(header []byte, ip, mss int, slices [][]byte, size int, push bool) {
	s.hl, s.ip, s.mss, s.push = copy(s.header[:], header), ip, mss, push
	s.slices, s.left = slices, size
	s.seq = binary.BigEndian.Uint32(header[ip+4:])
	s.id = binary.BigEndian.Uint16(header[4:])
}

// next is the size of the next segment with headers, 0 when there is none.
func (s *segmenter) next() int {
	if s.left == 0 {
		return 0
	}
	return s.hl + min(s.mss, s.left)
}

// write puts the next segment into out, which has the length that next said.
func (s *segmenter) write(out []byte) {
	n := len(out) - s.hl
	copy(out, s.header[:s.hl])
	for at := s.hl; at < len(out); {
		k := copy(out[at:], s.slices[0])
		at += k
		if k == len(s.slices[0]) {
			s.slices = s.slices[1:]
		} else {
			s.slices[0] = s.slices[0][k:]
		}
	}
	s.left -= n

	tcp := out[s.ip:]
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	s.seq += uint32(n)
	switch {
	case s.left > 0:
		tcp[13] &^= tcpFIN | tcpPSH
	case !s.push:
		tcp[13] &^= tcpPSH
	}
	tcp[16], tcp[17] = 0, 0
	var sum uint16
	if out[0]>>4 == 4 {
		binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
		binary.BigEndian.PutUint16(out[4:], s.id)
		s.id++
		out[10], out[11] = 0, 0
		binary.BigEndian.PutUint16(out[10:], ^packet.Sum(out[:s.ip], 0))
		sum = packet.PseudoSum(packet.TCP, out[12:16], out[16:20], len(tcp))
	} else {
		binary.BigEndian.PutUint16(out[4:], uint16(len(tcp)))
		sum = packet.PseudoSum(packet.TCP, out[8:24], out[24:40], len(tcp))
	}
	binary.BigEndian.PutUint16(tcp[16:], ^packet.Sum(tcp, sum))
}
