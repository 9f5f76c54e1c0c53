package packet

import (
	"encoding/binary"
	"time"
)

// Fragment splits the whole packet b into fragments of at most mtu bytes and
// hands out each one's length to alloc, which returns the space to write it
// to. A packet that fits is copied as it is. b may itself be a fragment. mtu
// must be at least 576. It reports false, and asks for no space, when b is no
// packet, or a fragment that repeats more headers than maxRepeated in each piece.
func Fragment(b []byte, mtu int, alloc func(n int) []byte) bool {
	if len(b) <= mtu {
		copy(alloc(len(b)), b)
		return true
	}
	p, ok := Parse(b)
	if !ok {
		return false
	}
	switch {
	case !p.Is6():
		fragment4(&p, mtu, alloc)
	case p.Fragment && p.fragHeader > maxRepeated:
		return false
	default:
		fragment6(&p, mtu, alloc)
	}
	return true
}

// maxRepeated bounds what an IPv6 packet has before its fragment header. A peer may
// send 16 KiB of extensions there, behind which no piece has room for data.
const maxRepeated = header6 + 60

// Fragments is how many pieces Fragment makes of a packet of n bytes, or one
// more.
func Fragments(n, mtu int) int {
	if n <= mtu {
		return 1
	}
	room := (mtu - maxRepeated - 8) &^ 7
	return n/room + 1
}

func fragment4(p *Packet, mtu int, alloc func(n int) []byte) {
	room := (mtu - p.L4) &^ 7
	payload := p.Payload()
	for at := 0; at < len(payload); at += room {
		n := min(room, len(payload)-at)
		out := alloc(p.L4 + n)
		copy(out, p.Data[:p.L4])
		copy(out[p.L4:], payload[at:at+n])
		field := uint16((p.Offset + at) / 8)
		if at+n < len(payload) || p.More {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
		binary.BigEndian.PutUint16(out[6:], field)
		putHeaderSum(out)
	}
}

// fragment6 puts the fragment header right behind the IPv6 header, or cuts
// the packet again where it already has one.
func fragment6(p *Packet, mtu int, alloc func(n int) []byte) {
	head, next, data := header6, p.Data[6], p.Data[header6:]
	id := ipID.Add(1)
	if p.Fragment {
		head, next, data, id = p.fragHeader, p.Proto, p.Payload(), p.ID
	}
	room := (mtu - head - 8) &^ 7
	for at := 0; at < len(data); at += room {
		n := min(room, len(data)-at)
		out := alloc(head + 8 + n)
		copy(out, p.Data[:head])
		if !p.Fragment {
			out[6] = fragment
		}
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-header6))
		field := uint16(p.Offset + at)
		if at+n < len(data) || p.More {
			field |= 1
		}
		f := out[head:]
		f[0], f[1] = next, 0
		binary.BigEndian.PutUint16(f[2:], field)
		binary.BigEndian.PutUint32(f[4:], id)
		copy(f[8:], data[at:at+n])
	}
}

// Limits of a Reassembler, which holds outside bytes.
const (
	maxPartial      = 64               // packets being put together at once
	maxPartialBytes = 1 << 20          // and their bytes
	maxPieces       = 128              // fragments of one packet: 65,535 bytes in the smallest allowed, 576
	partialTTL      = 15 * time.Second // after its first fragment (RFC 791 suggests 15 s)
)

// Reassembler puts fragments together. It is bounded in packets, bytes and
// time: when it is full, who takes up the most of it makes room. It refuses
// overlapping fragments (RFC 5722; RFC 1858 shows the attacks). It is not safe for
// concurrent use.
type Reassembler struct {
	partials map[fragKey]*partial
	senders  map[[16]byte]load
	bytes    int
}

// load is what a sender takes up.
type load struct{ packets, bytes int }

type fragKey struct {
	src, dst [16]byte
	id       uint32
	proto    uint8
	six      bool
}

type partial struct {
	since  time.Time
	pieces []piece // ordered by offset
	have   int     // bytes of payload
	want   int     // payload length once the last fragment came, else 0
	header []byte  // of the first fragment
	next   int     // where the header's Next Header byte is (IPv6)
}

type piece struct {
	at   int
	data []byte
}

// Add takes one fragment, copies it, and returns the whole packet when this
// was the last missing piece. The result is the caller's.
func (r *Reassembler) Add(p *Packet, now time.Time) (whole []byte, ok bool) {
	data := p.Payload()
	if len(data) == 0 || p.More && len(data)%8 != 0 {
		return nil, false
	}
	key := fragKey{src: p.Src.As16(), dst: p.Dst.As16(), id: p.ID, proto: p.Proto, six: p.Is6()}
	if r.partials == nil {
		r.partials, r.senders = make(map[fragKey]*partial), make(map[[16]byte]load)
	}
	r.expire(now)
	if r.partials[key] == nil {
		for len(r.partials) >= maxPartial {
			r.dropOf(func(l load) int { return l.packets })
		}
		r.partials[key] = &partial{since: now}
		r.count(key, 1, 0)
	}
	for r.bytes+len(data) > maxPartialBytes {
		r.dropOf(func(l load) int { return l.bytes })
	}
	q := r.partials[key]
	if q == nil {
		return nil, false // it has just made room for others
	}
	if !q.add(p, data) {
		r.drop(key, q)
		return nil, false
	}
	r.count(key, 0, len(data))
	if q.want == 0 || q.have != q.want {
		return nil, false
	}
	whole = q.join(p.Is6())
	r.drop(key, q)
	return whole, whole != nil
}

func (r *Reassembler) expire(now time.Time) {
	for key, q := range r.partials {
		if now.Sub(q.since) > partialTTL {
			r.drop(key, q)
		}
	}
}

// dropOf drops the oldest packet of the sender that takes up the most.
func (r *Reassembler) dropOf(takes func(load) int) {
	var most [16]byte
	for src, l := range r.senders {
		if takes(l) > takes(r.senders[most]) {
			most = src
		}
	}
	var oldest fragKey
	for key, q := range r.partials {
		if old := r.partials[oldest]; key.src == most && (old == nil || q.since.Before(old.since)) {
			oldest = key
		}
	}
	r.drop(oldest, r.partials[oldest])
}

func (r *Reassembler) drop(key fragKey, q *partial) {
	delete(r.partials, key)
	r.count(key, -1, -q.have)
}

// count adds to what a packet's sender takes up, and all together.
func (r *Reassembler) count(key fragKey, packets, bytes int) {
	r.bytes += bytes
	l := r.senders[key.src]
	if l.packets, l.bytes = l.packets+packets, l.bytes+bytes; l.packets == 0 {
		delete(r.senders, key.src)
		return
	}
	r.senders[key.src] = l
}

// add files the fragment in order. It reports false when the fragment
// overlaps another or contradicts what is known of the length.
func (q *partial) add(p *Packet, data []byte) bool {
	end := p.Offset + len(data)
	if len(q.pieces) == maxPieces || q.want != 0 && (end > q.want || !p.More) {
		return false
	}
	i := 0
	for i < len(q.pieces) && q.pieces[i].at < p.Offset {
		i++
	}
	if i > 0 && q.pieces[i-1].at+len(q.pieces[i-1].data) > p.Offset {
		return false
	}
	if i < len(q.pieces) && q.pieces[i].at < end {
		return false
	}
	if !p.More {
		if last := len(q.pieces) - 1; last >= 0 && q.pieces[last].at+len(q.pieces[last].data) > end {
			return false
		}
		q.want = end
	}
	if p.Offset == 0 {
		head := p.L4
		if p.Is6() {
			head = p.fragHeader
		}
		q.header = append([]byte(nil), p.Data[:head]...)
		q.next = p.fragNext
		if p.Is6() {
			q.header[q.next] = p.Proto
		}
	}
	q.pieces = append(q.pieces, piece{})
	copy(q.pieces[i+1:], q.pieces[i:])
	q.pieces[i] = piece{p.Offset, append([]byte(nil), data...)}
	q.have += len(data)
	return true
}

// join builds the whole packet, or nothing when it would be too long.
func (q *partial) join(six bool) []byte {
	size := len(q.header) + q.want
	if size > MaxSize || len(q.header) == 0 {
		return nil
	}
	b := make([]byte, 0, size)
	b = append(b, q.header...)
	for _, f := range q.pieces {
		b = append(b, f.data...)
	}
	if six {
		binary.BigEndian.PutUint16(b[4:], uint16(size-header6))
		return b
	}
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	b[6], b[7] = 0, 0
	putHeaderSum(b)
	return b
}
