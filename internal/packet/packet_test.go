package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var (
	src4, dst4 = netip.MustParseAddrPort("198.18.0.2:4000"), netip.MustParseAddrPort("10.96.0.10:53")
	src6, dst6 = netip.MustParseAddrPort("[fd70:6f64:6e65:7400::2]:4000"), netip.MustParseAddrPort("[fd00:10:96::a]:53")
)

func udp(src, dst netip.AddrPort, payload []byte) []byte {
	hl := HeaderIP(src.Addr()) + HeaderUDP
	b := make([]byte, hl+len(payload))
	copy(b[hl:], payload)
	PutUDP(b, src, dst)
	return b
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// slowSum is RFC 1071 as it is written there.
func slowSum(b []byte, sum uint16) uint16 {
	acc := uint32(sum)
	for ; len(b) > 1; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
		acc = acc>>16 + acc&0xffff
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

func TestSum(t *testing.T) {
	data := noise(1500)
	for n := range data {
		for _, init := range []uint16{0, 1, 0xfffe, 0xffff} {
			if got, want := Sum(data[:n], init), slowSum(data[:n], init); got != want {
				t.Fatalf("sum of %d bytes on %04x: %04x, want %04x", n, init, got, want)
			}
		}
	}
	ones := bytes.Repeat([]byte{0xff}, 65535)
	if got, want := Sum(ones, 0xffff), slowSum(ones, 0xffff); got != want {
		t.Errorf("sum of all ones: %04x, want %04x", got, want)
	}
}

func BenchmarkSum(b *testing.B) {
	data := noise(1380)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Sum(data, 0)
	}
}

func TestUDPThereAndBack(t *testing.T) {
	for _, a := range [][2]netip.AddrPort{{src4, dst4}, {src6, dst6}} {
		for _, n := range []int{0, 1, 512, 1392} {
			b := udp(a[0], a[1], noise(n))
			p, ok := Parse(append(b, 0, 0, 0)) // with WireGuard's padding
			if !ok || p.Proto != UDP {
				t.Fatalf("parse: %+v %v", p, ok)
			}
			src, dst, ok := p.Ports()
			got, ok2 := p.UDP()
			if !ok || !ok2 || src != a[0] || dst != a[1] || !bytes.Equal(got, noise(n)) {
				t.Errorf("%v to %v, %d bytes: got %v to %v, %d bytes", a[0], a[1], n, src, dst, len(got))
			}
			if s := Sum(p.Payload(), addrPseudoSum(UDP, src.Addr(), dst.Addr(), len(p.Payload()))); s != 0xffff {
				t.Errorf("checksum %04x", s)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good4, good6 := udp(src4, dst4, noise(32)), udp(src6, dst6, noise(32))
	edit := func(b []byte, at int, v ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[at:], v)
		return c
	}
	for name, b := range map[string][]byte{
		"nothing":                       {},
		"version 5":                     edit(good4, 0, 0x55),
		"header cut":                    good4[:19],
		"header length 16":              edit(good4, 0, 0x44),
		"header longer than the packet": edit(edit(good4, 0, 0x4f), 2, 0, 40),
		"longer than it is":             edit(good4, 2, 1, 0),
		"shorter than its header":       edit(good4, 2, 0, 10),
		"ends beyond 65535":             edit(good4, 6, 0x1f, 0xff),
		"IPv6 header cut":               good6[:39],
		"IPv6 longer than it is":        edit(good6, 4, 1, 0),
		"IPv4-mapped":                   edit(good6, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1),
		"extension beyond the end":      edit(edit(good6, 6, 0), 41, 200),
		"endless extensions":            bytes.Replace(append(edit(good6[:40], 4, 0, 80, 60), make([]byte, 80)...), make([]byte, 8), []byte{60, 0, 0, 0, 0, 0, 0, 0}, -1),
	} {
		if p, ok := Parse(b); ok {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
}

func TestFragmentsComeTogether(t *testing.T) {
	for _, a := range [][2]netip.AddrPort{{src4, dst4}, {src6, dst6}} {
		for _, n := range []int{1400, 3000, 60000} {
			whole := udp(a[0], a[1], noise(n))
			var pieces [][]byte
			alloc := func(n int) []byte {
				pieces = append(pieces, make([]byte, n))
				return pieces[len(pieces)-1]
			}
			if !Fragment(whole, 1420, alloc) {
				t.Fatal("not fragmented")
			}
			if len(pieces) > Fragments(len(whole), 1420) {
				t.Errorf("%d bytes make %d fragments, more than the %d said", n, len(pieces), Fragments(len(whole), 1420))
			}
			// Once more, smaller, as a second gateway would.
			first := pieces
			pieces = nil
			for _, f := range first {
				Fragment(f, 1280, alloc)
			}
			rand.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
			var r Reassembler
			var got []byte
			for i, f := range pieces {
				p, ok := Parse(f)
				if !ok || !p.Fragment || len(f) > 1280 {
					t.Fatalf("fragment of %d bytes: %+v, %v", len(f), p, ok)
				}
				b, done := r.Add(&p, time.Unix(0, 0))
				if done != (i == len(pieces)-1) {
					t.Fatalf("fragment %d of %d: done is %v", i, len(pieces), done)
				}
				got = b
			}
			p, ok := Parse(got)
			payload, ok2 := p.UDP()
			if !ok || !ok2 || p.Fragment || !bytes.Equal(payload, noise(n)) {
				t.Errorf("%d bytes did not come together again", n)
			}
			if r.bytes != 0 || len(r.partials) != 0 || len(r.senders) != 0 {
				t.Errorf("reassembler keeps %d bytes", r.bytes)
			}
		}
	}
}

// A fragment may have more extension headers before its fragment header than fit
// into what it is to be cut to.
func TestFragmentBehindManyExtensions(t *testing.T) {
	for _, extensions := range []int{8, 56, 64, 1024, 1360, 1368, 1376, 2048, 4 * 2048} {
		b := make([]byte, header6+extensions+8+1600)
		PutIP(b, destOpts, src6.Addr(), dst6.Addr())
		at := header6
		for left := extensions; left > 0; {
			n := min(left, 2048)
			b[at], b[at+1] = destOpts, byte(n/8-1)
			if left -= n; left == 0 {
				b[at] = fragment
			}
			at += n
		}
		b[at] = UDP
		binary.BigEndian.PutUint16(b[at+2:], 8|1)
		p, ok := Parse(b)
		if !ok || !p.Fragment {
			t.Fatalf("%d bytes of extensions: %+v, %v", extensions, p, ok)
		}
		pieces := 0
		whole := Fragment(b, 1420, func(n int) []byte {
			if pieces++; n > 1420 || pieces > Fragments(len(b), 1420) {
				t.Fatalf("%d bytes of extensions: piece %d has %d bytes", extensions, pieces, n)
			}
			return make([]byte, n)
		})
		if whole != (pieces > 0) {
			t.Errorf("%d bytes of extensions: %v, with %d pieces", extensions, whole, pieces)
		}
	}
}

func TestReassemblerIsBounded(t *testing.T) {
	piece := func(id uint16, at int, n int, more bool) *Packet {
		b := make([]byte, 20+n)
		PutIP(b, UDP, src4.Addr(), dst4.Addr())
		binary.BigEndian.PutUint16(b[4:], id)
		field := uint16(at / 8)
		if more {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], field)
		p, ok := Parse(b)
		if !ok {
			t.Fatal("bad test packet")
		}
		return &p
	}
	now := time.Unix(1000, 0)
	var r Reassembler
	for id := range uint16(1000) {
		r.Add(piece(id, 8, 1400, true), now)
	}
	if len(r.partials) != maxPartial || r.bytes > maxPartialBytes {
		t.Errorf("holds %d packets of %d bytes", len(r.partials), r.bytes)
	}
	r.Add(piece(1, 2000, 8, true), now.Add(2*partialTTL))
	if len(r.partials) != 1 {
		t.Errorf("%d packets after their time", len(r.partials))
	}
	// Overlaps and contradictions end the packet (RFC 5722).
	for name, bad := range map[string]*Packet{
		"overlap":        piece(7, 1000, 800, true),
		"second last":    piece(7, 1608, 8, false),
		"beyond the end": piece(7, 3200, 8, true),
	} {
		var r Reassembler
		r.Add(piece(7, 800, 800, true), now)
		r.Add(piece(7, 1600, 8, false), now)
		r.Add(bad, now)
		if len(r.partials) != 0 || r.bytes != 0 {
			t.Errorf("%s: kept", name)
		}
	}
}

// Whoever begins packets without end takes the room from himself: what others send
// comes together beside it.
func TestReassemblerIsFair(t *testing.T) {
	flooder := netip.MustParseAddrPort("198.18.0.66:6666")
	cut := func(b []byte) (all []Packet) {
		Fragment(b, 1280, func(n int) []byte {
			all = append(all, Packet{Data: make([]byte, n)})
			return all[len(all)-1].Data
		})
		for i := range all {
			all[i], _ = Parse(all[i].Data)
		}
		return all
	}
	for name, size := range map[string]int{"many packets": 1300, "many bytes": 60000} {
		var r Reassembler
		now := time.Unix(1000, 0)
		flood := func() {
			for range 80 {
				pieces := cut(udp(flooder, dst4, noise(size)))
				for i := range pieces[1:] {
					r.Add(&pieces[i], now)
				}
			}
		}
		flood()
		pieces := cut(udp(src4, dst4, noise(30000)))
		for i := range pieces {
			whole, ok := r.Add(&pieces[i], now)
			if last := i == len(pieces)-1; ok != last || last && len(whole) != 30000+28 {
				t.Fatalf("%s: fragment %d of %d makes a packet of %d bytes", name, i, len(pieces), len(whole))
			}
			flood()
		}
		if len(r.partials) > maxPartial || r.bytes > maxPartialBytes {
			t.Errorf("%s: holds %d packets of %d bytes", name, len(r.partials), r.bytes)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(udp(src4, dst4, noise(32)))
	f.Add(udp(src6, dst6, noise(32)))
	add := func(n int) []byte { return make([]byte, n) }
	for _, b := range [][]byte{udp(src4, dst4, noise(1500)), udp(src6, dst6, noise(1500))} {
		var pieces [][]byte
		Fragment(b, 1280, func(n int) []byte {
			pieces = append(pieces, add(n))
			return pieces[len(pieces)-1]
		})
		for _, p := range pieces {
			f.Add(p)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := Parse(b)
		if !ok {
			return
		}
		if len(p.Data) > len(b) || p.L4 > len(p.Data) || !p.Src.IsValid() || !p.Dst.IsValid() {
			t.Fatalf("accepted %+v", p)
		}
		p.Ports()
		p.UDP()
		p.SYN()
		p.Echo()
		AboutTCP(&p)
		Intended(&p)
		RelaxUnreachable(&p)
		e := make([]byte, UnreachableSize(p.Data))
		PutUnreachable(e, p.Data, Prohibited)
		if q, ok := Parse(e); !ok || !q.Err() || q.Dst != p.Src {
			t.Fatalf("the error about %x cannot be parsed", b)
		}
		if p.Fragment {
			var r Reassembler
			if whole, ok := r.Add(&p, time.Unix(0, 0)); ok {
				// What was hidden in the fragment may still be malformed.
				if q, ok := Parse(whole); ok && len(q.Data) != len(whole) {
					t.Fatalf("reassembled %x from %x", whole, b)
				}
			}
		}
		Fragment(p.Data, 576, add)
	})
}

// FuzzReassemble feeds fragments that the fuzzer may reorder, cut and overlap.
func FuzzReassemble(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 1, 8, 1, 0}, true)
	f.Fuzz(func(t *testing.T, plan []byte, six bool) {
		var r Reassembler
		now := time.Unix(0, 0)
		for ; len(plan) >= 4; plan = plan[4:] {
			p := Packet{Data: make([]byte, 40+int(plan[3])), Src: src4.Addr(), Dst: dst4.Addr(), Proto: UDP,
				Fragment: true, L4: 40, More: plan[2]&1 != 0, Offset: int(plan[0])<<8 | int(plan[1]&^7), ID: uint32(plan[2] >> 4), fragHeader: 40}
			p.Data[0] = 0x4a
			if six {
				p.Data[0], p.Src, p.Dst, p.fragNext = 0x60, src6.Addr(), dst6.Addr(), 6
			}
			if p.Offset+int(plan[3]) > MaxSize {
				continue
			}
			now = now.Add(time.Duration(plan[2]) * 100 * time.Millisecond)
			whole, ok := r.Add(&p, now)
			if ok && len(whole) > MaxSize {
				t.Fatal("too long")
			}
			sum := 0
			for _, q := range r.partials {
				have := 0
				for _, f := range q.pieces {
					have += len(f.data)
				}
				if have != q.have {
					t.Fatal("miscounted")
				}
				sum += have
			}
			if sum != r.bytes || sum > maxPartialBytes || len(r.partials) > maxPartial || r.senders[p.Src.As16()] != (load{len(r.partials), sum}) {
				t.Fatalf("holds %d bytes, counts %d, %v", sum, r.bytes, r.senders)
			}
		}
	})
}
