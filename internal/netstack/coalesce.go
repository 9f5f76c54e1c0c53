package netstack

import (
	"encoding/binary"

	"podnet.dev/internal/packet"
)

// bulk reports whether p is a plain TCP segment with data: no IP options or
// fragments, no flags but ACK and PSH. It returns the length of the IP header
// and of both headers.
func bulk(p []byte) (ip, hl int, ok bool) {
	switch {
	case len(p) >= 40 && p[0] == 0x45 && p[9] == packet.TCP &&
		p[6]&0x3f == 0 && p[7] == 0 && int(binary.BigEndian.Uint16(p[2:])) == len(p):
		ip = 20
	case len(p) >= 60 && p[0]>>4 == 6 && p[6] == packet.TCP &&
		int(binary.BigEndian.Uint16(p[4:])) == len(p)-40:
		ip = 40
	default:
		return 0, 0, false
	}
	hl = ip + int(p[ip+12]>>4)*4
	if hl < ip+20 || hl >= len(p) || p[ip+13]&^tcpPSH != tcpACK {
		return 0, 0, false
	}
	return ip, hl, true
}

// coalesce counts how many of the packets bufs[i][offset:] are consecutive
// segments of one flow that differ from the first in nothing but their place,
// the length of the packet they make and of its headers. For anything but a
// bulk segment it returns 1 and no headers.
func coalesce(bufs [][]byte, offset int) (n, size, ip, hl int) {
	first := bufs[0][offset:]
	ip, hl, ok := bulk(first)
	n, size = 1, len(first)
	if !ok || first[ip+13]&tcpPSH != 0 {
		return n, size, ip, hl
	}
	next := binary.BigEndian.Uint32(first[ip+4:]) + uint32(len(first)-hl)
	for _, b := range bufs[1:] {
		p := b[offset:]
		pip, phl, ok := bulk(p)
		if !ok || pip != ip || phl != hl || size+len(p)-hl > packet.MaxSize ||
			binary.BigEndian.Uint32(p[ip+4:]) != next || !sameFlow(first, p, ip, hl) {
			break
		}
		n++
		size += len(p) - hl
		next += uint32(len(p) - hl)
		if p[ip+13]&tcpPSH != 0 {
			break
		}
	}
	return n, size, ip, hl
}

// sameFlow compares the headers of two bulk segments but for lengths,
// identification, checksums, sequence number and PSH.
func sameFlow(a, b []byte, ip, hl int) bool {
	if ip == 20 {
		if a[1] != b[1] || a[6] != b[6] || a[8] != b[8] || string(a[12:20]) != string(b[12:20]) {
			return false
		}
	} else if string(a[:4]) != string(b[:4]) || a[7] != b[7] || string(a[8:40]) != string(b[8:40]) {
		return false
	}
	ta, tb := a[ip:hl], b[ip:hl]
	return string(ta[:4]) == string(tb[:4]) && // ports
		string(ta[8:13]) == string(tb[8:13]) && // acknowledgement, header length
		string(ta[14:16]) == string(tb[14:16]) && // window
		string(ta[18:]) == string(tb[18:]) // urgent pointer, options
}

// merge writes the packet that coalesce found into dst. Checksums stay those
// of the first segment: nobody looks at them.
func merge(dst []byte, bufs [][]byte, offset, ip, hl int) {
	at := copy(dst, bufs[0][offset:])
	for _, b := range bufs[1:] {
		at += copy(dst[at:], b[offset+hl:])
	}
	dst[ip+13] |= bufs[len(bufs)-1][offset+ip+13] & tcpPSH
	if ip == 20 {
		binary.BigEndian.PutUint16(dst[2:], uint16(len(dst)))
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(len(dst)-40))
	}
}
