package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"podnet.dev/internal/packet"
)

// largeTCP is a TCP packet as gVisor hands it down: no lengths or checksums,
// the payload in pieces of arbitrary size.
func largeTCP(six bool, payload []byte, seq uint32, flags byte) (header []byte, ip int, slices [][]byte) {
	src, dst := a4, b4
	if six {
		src, dst = a6, b6
	}
	ip = packet.HeaderIP(src)
	header = make([]byte, ip+32)
	packet.PutIP(header, packet.TCP, src, dst)
	tcp := header[ip:]
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 8<<4, flags
	for rest := payload; len(rest) > 0; {
		n := 1 + rand.N(min(len(rest), 5000))
		slices = append(slices, rest[:n])
		rest = rest[n:]
	}
	return header, ip, slices
}

// What the segmenter cuts, coalesce puts together again.
func TestSegmentsComeTogether(t *testing.T) {
	const offset = 16
	for _, six := range []bool{false, true} {
		for _, size := range []int{1, 1368, 1369, 60192, 64000} {
			payload := make([]byte, size)
			rand.NewChaCha8([32]byte{7}).Read(payload)
			header, ip, slices := largeTCP(six, payload, 0xfffffff0, tcpACK|tcpPSH|tcpFIN)
			var s segmenter
			s.load(header, ip, 1368, slices, size, true)
			var bufs [][]byte
			for n := s.next(); n > 0; n = s.next() {
				b := make([]byte, offset+n)
				s.write(b[offset:])
				checkSums(t, b[offset:])
				bufs = append(bufs, b)
			}
			if want := (size + 1367) / 1368; len(bufs) != want {
				t.Errorf("%d bytes make %d segments, want %d", size, len(bufs), want)
			}
			for i, b := range bufs {
				flags := b[offset+ip+13]
				if last := i == len(bufs)-1; last != (flags&tcpFIN != 0) || last != (flags&tcpPSH != 0) {
					t.Errorf("segment %d of %d has flags %02x", i, len(bufs), flags)
				}
			}
			bufs[len(bufs)-1][offset+ip+13] &^= tcpFIN
			n, total, gotIP, hl := coalesce(bufs, offset)
			if n != len(bufs) || gotIP != ip || hl != len(header) || total != hl+size {
				t.Fatalf("%d bytes: coalesced %d of %d segments into %d bytes", size, n, len(bufs), total)
			}
			merged := make([]byte, total)
			merge(merged, bufs, offset, ip, hl)
			p, ok := packet.Parse(merged)
			if !ok || len(p.Data) != total || !bytes.Equal(merged[hl:], payload) || merged[ip+13] != tcpACK|tcpPSH {
				t.Errorf("%d bytes came out changed", size)
			}
		}
	}
}

// Segments that differ in anything a receiver must see stay apart.
func TestCoalesceKeepsApart(t *testing.T) {
	segment := func(edit func(b []byte)) []byte {
		header, ip, slices := largeTCP(false, make([]byte, 100), 1000, tcpACK)
		var s segmenter
		s.load(header, ip, 1368, slices, 100, false)
		b := make([]byte, s.next())
		s.write(b)
		edit(b)
		return b
	}
	next := func(b []byte) { binary.BigEndian.PutUint32(b[24:], 1100) }
	first := segment(func([]byte) {})
	if n, _, _, _ := coalesce([][]byte{first, segment(next)}, 0); n != 2 {
		t.Fatal("contiguous segments stay apart")
	}
	for name, edit := range map[string]func(b []byte){
		"gap":             func(b []byte) { b[27]++ },
		"ECN":             func(b []byte) { b[1] = 3 },
		"other port":      func(b []byte) { b[21]++ },
		"other address":   func(b []byte) { b[15]++ },
		"acknowledgement": func(b []byte) { b[31]++ },
		"window":          func(b []byte) { b[35]++ },
		"timestamp":       func(b []byte) { b[50]++ },
		"FIN":             func(b []byte) { b[33] |= tcpFIN },
		"urgent":          func(b []byte) { b[33] |= 0x20 },
		"fragment":        func(b []byte) { b[6] |= 0x20 },
		"length":          func(b []byte) { b[3]-- },
	} {
		second := segment(func(b []byte) { next(b); edit(b) })
		if n, _, _, _ := coalesce([][]byte{first, second}, 0); n != 1 {
			t.Errorf("%s: merged", name)
		}
	}
}

// FuzzWrite feeds a forwarding stack with what a hostile peer may send. Two
// packets at once, so that merging is reached.
func FuzzWrite(f *testing.F) {
	header, ip, slices := largeTCP(false, make([]byte, 100), 1, tcpACK)
	var s segmenter
	s.load(header, ip, 60, slices, 100, false)
	first, second := make([]byte, s.next()), []byte(nil)
	s.write(first)
	second = make([]byte, s.next())
	s.write(second)
	f.Add(first, second)
	six := make([]byte, 60)
	packet.PutIP(six, packet.TCP, b6, a6)
	six[52], six[53] = 5<<4, 2
	f.Add(six, six[:40])
	stack, err := New(Config{MTU: 16384})
	if err != nil {
		f.Fatal(err)
	}
	stack.AddAddress(a4)
	stack.AddAddress(a6)
	stack.Forward(&Hooks{
		SYN:       func(*packet.Packet) bool { return true },
		TCP:       func(r *TCPRequest) { r.Reset() },
		Datagrams: func([]packet.Packet) {},
	})
	f.Cleanup(func() { stack.Close() })
	go func() {
		bufs, sizes := [][]byte{make([]byte, 65535)}, make([]int, 1)
		for {
			if _, err := stack.Device().Read(bufs, sizes, 0); err != nil {
				return
			}
		}
	}()
	f.Fuzz(func(t *testing.T, a, b []byte) {
		stack.Device().Write([][]byte{a, b}, 0)
	})
}
