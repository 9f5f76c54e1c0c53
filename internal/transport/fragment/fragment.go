// Package fragment cuts datagrams that a path does not take whole, and puts
// them together again. It is pure. It proves nothing: a forged piece spoils the
// datagram it claims to be of, as a lost one would, and whoever gets the result
// has to find out.
package fragment

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// HeaderSize is what each piece begins with, in bytes: 'p', 'f', the
	// datagram's number (2), the piece's number (1), how many pieces (1).
	HeaderSize = 6
	// MaxPieces is how many pieces a datagram may be cut into. 14 make the
	// largest that podnet sends, 16 KiB, pass where 1232 bytes do.
	MaxPieces = 16
	// MaxPiece is the longest piece, header included, that is taken: nobody
	// needs a longer one, as whole datagrams of that size pass.
	MaxPiece = 1452

	// Timeout is how long a datagram waits for its last piece. Pieces follow
	// each other at once, so it is generous.
	Timeout = time.Second
	// open is how many datagrams may wait, in an Assembler.
	open = 64

	magic, kind = 'p', 'f'
)

// Is reports whether b says that it is a piece.
func Is(b []byte) bool { return len(b) > HeaderSize && b[0] == magic && b[1] == kind }

// Pieces is how many pieces of at most limit bytes m takes; 0: more than
// MaxPieces.
func Pieces(m []byte, limit int) int {
	room := limit - HeaderSize
	if room <= 0 || len(m) > room*MaxPieces {
		return 0
	}
	return (len(m) + room - 1) / room
}

// Append appends piece index of count of m, whose number is id, to b. All pieces
// of a datagram are of one length, but for a shorter last: the kernel can then
// send them in one go.
func Append(b []byte, id uint16, m []byte, index, count int) []byte {
	size := (len(m) + count - 1) / count
	b = append(b, magic, kind, byte(id>>8), byte(id), byte(index), byte(count))
	return append(b, m[min(index*size, len(m)):min((index+1)*size, len(m))]...)
}

// Assembler puts pieces together. The zero Assembler is ready. It needs at most
// 1.5 MiB however many pieces it is given. It is not safe for concurrent use.
type Assembler struct {
	seed  maphash.Seed
	slots [open]*slot
	out   []byte
}

// slot holds the pieces of one datagram in the order in which they came.
type slot struct {
	from  netip.AddrPort
	id    uint16
	count int // 0: nothing is in it
	began time.Time
	got   int
	at    [MaxPieces]int // where in buf a piece begins; -1: it has not come
	size  [MaxPieces]int
	buf   []byte
}

// Add takes a piece that came from an address, and returns the whole datagram
// when it was the last one that was missing. What it returns stays as it is
// until the next Add.
func (a *Assembler) Add(now time.Time, from netip.AddrPort, piece []byte) []byte {
	if !Is(piece) || len(piece) > MaxPiece {
		return nil
	}
	id, index, count := binary.BigEndian.Uint16(piece[2:]), int(piece[4]), int(piece[5])
	data := piece[HeaderSize:]
	if count < 2 || count > MaxPieces || index >= count {
		return nil
	}
	s := a.slot(from, id)
	if s.count != count || s.id != id || s.from != from || now.Sub(s.began) > Timeout {
		s.begin(now, from, id, count)
	}
	if s.at[index] >= 0 {
		return nil
	}
	s.at[index], s.size[index] = len(s.buf), len(data)
	s.buf = append(s.buf, data...)
	if s.got++; s.got < count {
		return nil
	}
	s.count = 0
	return a.whole(s, count)
}

// slot is where the pieces of a datagram go. Consecutive datagrams of one sender
// have different ones, so that open of them may wait at once.
func (a *Assembler) slot(from netip.AddrPort, id uint16) *slot {
	if a.seed == (maphash.Seed{}) {
		a.seed = maphash.MakeSeed()
	}
	i := (maphash.Comparable(a.seed, from) + uint64(id)) % open
	if a.slots[i] == nil {
		a.slots[i] = &slot{}
	}
	return a.slots[i]
}

func (s *slot) begin(now time.Time, from netip.AddrPort, id uint16, count int) {
	s.from, s.id, s.count, s.began, s.got, s.buf = from, id, count, now, 0, s.buf[:0]
	for i := range s.at {
		s.at[i] = -1
	}
}

// whole is a slot's pieces in their order.
func (a *Assembler) whole(s *slot, count int) []byte {
	ordered := true
	for i := 1; i < count; i++ {
		ordered = ordered && s.at[i] > s.at[i-1]
	}
	if ordered {
		return s.buf
	}
	a.out = a.out[:0]
	for i := range count {
		a.out = append(a.out, s.buf[s.at[i]:][:s.size[i]]...)
	}
	return a.out
}
