package backlog

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What goes in comes out, whatever the parts, and all is given back.
func TestQueueKeepsOrder(t *testing.T) {
	const room = 1 << 20
	budget := NewBudget(room)
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		q := NewQueue(budget, room)
		var in, out []byte
		for range 300 {
			if rnd.IntN(3) > 0 {
				part := make([]byte, rnd.IntN(3)*rnd.IntN(2*largeChunk)/100)
				for i := range part {
					part[i] = byte(rnd.Uint32())
				}
				if !q.Add(part) {
					t.Fatal("no room")
				}
				in = append(in, part...)
				clear(part) // it is the caller's
				continue
			}
			b := q.Next()
			out = append(out, b...)
			q.Reuse(b)
		}
		for b := q.Next(); b != nil; b = q.Next() {
			out = append(out, b...)
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("seed %d: %d bytes in, %d out, or others", seed, len(in), len(out))
		}
	}
	if !budget.Take(room) {
		t.Error("something is still counted")
	}
}

// Small parts cost what they hold, about, and not what a slice costs.
func TestQueueOfSmallParts(t *testing.T) {
	const room = 1 << 20
	budget := NewBudget(room)
	q := NewQueue(budget, room)
	part, n := make([]byte, 40), 0
	for q.Add(part) {
		n += len(part)
	}
	if n < room-smallChunk {
		t.Errorf("full with %d of %d bytes", n, room)
	}
	size := 0
	for _, c := range q.chunks {
		size += cap(c)
	}
	if size > room || budget.Take(1) {
		t.Errorf("%d bytes of memory for %d", size, room)
	}
	q.Drop()
	if !budget.Take(room) {
		t.Error("what was dropped is still counted")
	}
}

func TestQueueHasItsOwnEnd(t *testing.T) {
	q := NewQueue(nil, 2*smallChunk)
	if !q.Add(make([]byte, 2*smallChunk)) || q.Add([]byte{0}) {
		t.Error("it does not end where it should")
	}
}
