package fragment

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var (
	here  = netip.MustParseAddrPort("192.0.2.1:51820")
	there = netip.MustParseAddrPort("[2001:db8::1]:51820")
	start = time.Unix(1000, 0)
)

// datagram is n bytes that tell where they belong.
func datagram(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i) + byte(i>>8)
	}
	return b
}

func cut(id uint16, m []byte, limit int) (pieces [][]byte) {
	count := Pieces(m, limit)
	for i := range count {
		pieces = append(pieces, Append(nil, id, m, i, count))
	}
	return pieces
}

func TestPiecesFitAndMakeTheWhole(t *testing.T) {
	for _, size := range []int{1233, 1312, 1452, 2452, 2453, 9000, 16416} {
		for _, limit := range []int{1232, 1332, 1392, 1452} {
			m := datagram(size, 1)
			if size <= limit {
				continue
			}
			pieces := cut(7, m, limit)
			if want := (size + limit - HeaderSize - 1) / (limit - HeaderSize); len(pieces) != want {
				t.Errorf("%d bytes in pieces of %d: %d, want %d", size, limit, len(pieces), want)
			}
			for i, p := range pieces {
				if len(p) > limit || i < len(pieces)-1 && len(p) != len(pieces[0]) || len(p) > len(pieces[0]) {
					t.Errorf("piece %d of %d bytes is %d long", i, size, len(p))
				}
			}
			for _, order := range [][]int{rand.Perm(len(pieces)), rand.Perm(len(pieces))} {
				var a Assembler
				for n, i := range order {
					got := a.Add(start, here, pieces[i])
					switch last := n == len(order)-1; {
					case !last && got != nil:
						t.Fatalf("%d bytes were whole with a piece missing", size)
					case last && !bytes.Equal(got, m):
						t.Fatalf("%d bytes came back as %d, or changed", size, len(got))
					}
				}
			}
		}
	}
	if Pieces(datagram(65000, 1), 1232) != 0 || Pieces(datagram(100, 1), HeaderSize) != 0 {
		t.Error("what takes too many pieces was cut")
	}
}

// Datagrams of several senders, with the same numbers, their pieces mixed and
// some of them lost, never get each other's bytes.
func TestDatagramsDoNotMix(t *testing.T) {
	var a Assembler
	whole := 0
	for round := range 200 {
		one, two := cut(uint16(round), datagram(1400, 1), 1232), cut(uint16(round), datagram(1400, 101), 1232)
		if round%3 == 0 {
			one = one[:1] // lost on the way
		}
		for i := range two {
			if i < len(one) {
				if got := a.Add(start, here, one[i]); got != nil && !bytes.Equal(got, datagram(1400, 1)) {
					t.Fatal("the first sender's datagram has changed")
				} else if got != nil {
					whole++
				}
			}
			if got := a.Add(start, there, two[i]); got != nil && !bytes.Equal(got, datagram(1400, 101)) {
				t.Fatal("the second sender's datagram has changed")
			} else if got != nil {
				whole++
			}
		}
	}
	// The two senders may share slots now and then, which costs a datagram.
	if whole < 200 {
		t.Errorf("%d datagrams of 333 were whole", whole)
	}
}

func TestWhatIsLateOrDoubledIsNothing(t *testing.T) {
	var a Assembler
	p := cut(1, datagram(1400, 1), 1232)
	for range 2 {
		if a.Add(start, here, p[0]) != nil {
			t.Error("one piece twice made a whole")
		}
	}
	if a.Add(start.Add(2*Timeout), here, p[1]) != nil {
		t.Error("pieces far apart made a whole")
	}
	if got := a.Add(start.Add(2*Timeout), here, p[0]); !bytes.Equal(got, datagram(1400, 1)) {
		t.Error("pieces that came again made no whole")
	}
	if a.Add(start.Add(2*Timeout), here, p[1]) != nil {
		t.Error("a piece of what was whole already made another")
	}
}

func TestAssemblingDoesNotAllocate(t *testing.T) {
	var a Assembler
	m := datagram(1312, 1)
	id := uint16(0)
	b := make([]byte, 0, 2*MaxPiece)
	run := func() {
		id++
		for i := range 2 {
			b = Append(b[:0], id, m, i, 2)
			a.Add(start, here, b)
		}
	}
	for range 2 * open {
		run()
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations for a datagram", n)
	}
}

// Whatever strangers send, the Assembler keeps its bounds and makes no datagram
// of pieces that do not say they are all of it.
func FuzzAssembler(f *testing.F) {
	for _, p := range cut(1, datagram(1400, 1), 1232) {
		f.Add(p, p)
	}
	f.Add([]byte("pf\x00\x01\x00\x02x"), []byte("pf\x00\x01\x01\x02y"))
	f.Add([]byte("pf\x00\x01\x00\x00x"), []byte("pf\x00\x01\xff\xffy"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var a Assembler
		sum := 0
		for i, p := range [][]byte{one, two, one} {
			sum += max(0, len(p)-HeaderSize)
			if got := a.Add(start, here, p); got != nil && (i == 0 || len(got) > sum || len(got) > MaxPieces*MaxPiece) {
				t.Fatalf("%d bytes of %d", len(got), sum)
			}
		}
		for _, s := range a.slots {
			if s != nil && len(s.buf) > MaxPieces*MaxPiece {
				t.Fatalf("a slot holds %d bytes", len(s.buf))
			}
		}
	})
}

func BenchmarkFragment(b *testing.B) {
	var a Assembler
	m := datagram(1312, 1)
	buf := make([]byte, 0, 2*MaxPiece)
	id := uint16(0)
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		id++
		for i := range 2 {
			buf = Append(buf[:0], id, m, i, 2)
			a.Add(start, here, buf)
		}
	}
}
