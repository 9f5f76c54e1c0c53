package netstack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// flowPacket is number seq of a flow of UDP packets that are size bytes long.
func flowPacket(flow uint16, seq uint32, size int) outbound {
	b := NewBuffer(size)
	clear(b.B)
	if flow%2 == 0 {
		b.B[0], b.B[9] = 4<<4|5, 17
		binary.BigEndian.PutUint16(b.B[20:], flow)
	} else {
		b.B[0], b.B[6] = 6<<4, 17
		binary.BigEndian.PutUint16(b.B[40:], flow)
	}
	binary.BigEndian.PutUint32(b.B[size-4:], seq)
	return outbound{raw: b}
}

func seqOf(o outbound) uint32 { return binary.BigEndian.Uint32(o.raw.B[o.size-4:]) }

func newTestQueue() *queue {
	q := &queue{}
	q.init()
	return q
}

// A query neither waits for room that downloads have taken nor for its turn.
func TestQueryPassesDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueue()
		const bulk = 32 << 10
		for flow := range uint16(3) {
			go func() {
				for q.put(flowPacket(flow, 1, bulk), bulk, true) {
				}
			}()
		}
		synctest.Wait()
		if !q.full() || q.blocked != 3 {
			t.Fatalf("%d bytes wait, and %d senders", q.prompt.bytes, q.blocked)
		}
		var o [1]outbound
		q.take(o[:], 1, true)
		synctest.Wait()
		start := time.Now()
		if !q.put(flowPacket(77, 5, 100), 100, true) || time.Since(start) > 0 {
			t.Error("a query had to wait for room")
		}
		for before := 0; ; before++ {
			q.take(o[:], 1, true)
			if o[0].size == 100 {
				break
			}
			if before > 2*turn/bulk {
				t.Fatalf("%d packets before the query", before)
			}
		}
		q.close()
	})
}

func TestFlowsTakeTurns(t *testing.T) {
	q := newTestQueue()
	for seq := range uint32(4) {
		for range 20 {
			q.put(flowPacket(2, seq, 1000), 1000, false)
		}
		q.put(flowPacket(4, seq, 40000), 40000, false)
	}
	// 80 kB of small packets and 160 kB of large ones: by the time the small
	// ones are through, as much of the large has gone, give or take a turn.
	small, large := 0, 0
	for small < 80000 {
		var o [1]outbound
		q.take(o[:], 1, true)
		if o[0].size == 1000 {
			small += 1000
		} else {
			large += o[0].size
		}
	}
	if large < small-turn || large > small+turn {
		t.Errorf("%d bytes of one flow and %d of the other", small, large)
	}
	q.close()
}

// Whatever comes and goes, each flow keeps its order and nothing is lost.
func TestFlowsKeepTheirOrder(t *testing.T) {
	q := newTestQueue()
	r := rand.New(rand.NewPCG(1, 2))
	put, got := map[uint16]uint32{}, map[uint16]uint32{}
	flowOf := func(o outbound) uint16 {
		return binary.BigEndian.Uint16(o.raw.B[o.size-8:])
	}
	waiting := 0
	var dst [64]outbound
	take := func(k int) {
		n, _ := q.take(dst[:k], 1<<20, false)
		waiting -= n
		for _, o := range dst[:n] {
			f := flowOf(o)
			if s := seqOf(o); s != got[f] {
				t.Fatalf("flow %d: packet %d, want %d", f, s, got[f])
			}
			got[f]++
			o.release()
		}
	}
	for range 200_000 {
		if r.IntN(2) == 0 {
			f, size := uint16(r.IntN(600)), 100+r.IntN(1300)
			o := flowPacket(f, put[f], size)
			binary.BigEndian.PutUint16(o.raw.B[size-8:], f)
			if !q.put(o, size, false) {
				o.release()
				if waiting != queuePackets+queueReserve {
					t.Fatalf("refused with %d waiting", waiting)
				}
				continue
			}
			put[f]++
			waiting++
		} else if r.IntN(40) == 0 {
			take(1 + r.IntN(len(dst)))
		}
	}
	for waiting > 0 {
		take(len(dst))
	}
	if q.prompt != (load{}) || q.slow != (load{}) || fmt.Sprint(put) != fmt.Sprint(got) {
		t.Errorf("%d packets and %d bytes are left", q.prompt.n, q.prompt.bytes)
	}
}
