package netstack

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// world says of each peer, the third byte of its address, what the device would.
type world struct{ room, slow map[uint64]bool }

func (w *world) of(a netip.Addr) uint64 { return uint64(a.As4()[2]) }

func (w *world) credit(peer uint64) (room, slow bool) {
	return w.room[peer], w.slow[peer]
}

func (w *world) queue() *queue {
	q := newTestQueue()
	q.peers.Store(&peers{w.of, w.credit})
	return q
}

// peerPacket is number seq of a flow of UDP packets to a peer.
func peerPacket(peer byte, flow uint16, seq uint32, size int) outbound {
	o := flowPacket(2*flow, seq, size)
	copy(o.raw.B[16:20], []byte{198, 18, peer, 1})
	o.size = size
	return o
}

// What is for a peer whose way is slow holds back neither who sends it nor what is
// for others, and waits until there is room.
func TestSlowPeerIsPassedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{room: map[uint64]bool{2: true}, slow: map[uint64]bool{1: true}}
		q := w.queue()
		var dst [64]outbound
		for seq := range uint32(100) {
			if !q.put(peerPacket(1, 1, seq, 32<<10), 32<<10, true) {
				t.Fatalf("packet %d was refused", seq)
			}
			if seq == 10 { // by now the reader has found out
				if k, _ := q.take(dst[:], 1<<20, false); k > 0 {
					t.Fatalf("%d packets for a peer without room", k)
				}
			}
		}
		if q.full() {
			t.Error("what is for the slow peer counts for others")
		}
		for seq := range uint32(5) {
			q.put(peerPacket(2, 1, seq, 1000), 1000, true)
		}
		if k, _ := q.take(dst[:], 1<<20, true); k != 5 {
			t.Errorf("%d packets, want those of the prompt peer", k)
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() { w.room[1] = true; q.look() })
		k, _ := q.take(dst[:], 1<<20, true)
		if d := time.Since(start); d != time.Second || k != 1 || seqOf(dst[0]) != 0 {
			t.Errorf("%d packets after %v, want one as soon as there is room", k, d)
		}
		q.close()
	})
}

// A sender who waits is let go when it turns out that the way is slow.
func TestWaitingForASlowPeerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{room: map[uint64]bool{1: true, 2: true}, slow: map[uint64]bool{}}
		q := w.queue()
		put := 0
		go func() {
			for q.put(peerPacket(1, 1, 0, 32<<10), 32<<10, true) {
				put++
			}
		}()
		synctest.Wait()
		if put != queueBytes>>15 {
			t.Fatalf("%d packets were taken in", put)
		}
		w.slow[1], w.room[1] = true, false
		var dst [1]outbound
		q.put(peerPacket(2, 1, 0, 100), 100, true)
		q.take(dst[:], 1, true)
		synctest.Wait()
		if put != slowBytes>>15 {
			t.Errorf("%d packets were taken in for a slow peer, want its share and no wait", put)
		}
		q.close()
	})
}

// A peer of whom nobody tells is asked for again.
func TestRoomIsFoundWithoutWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{room: map[uint64]bool{}, slow: map[uint64]bool{}}
		q := w.queue()
		q.put(peerPacket(1, 1, 0, 100), 100, true)
		time.AfterFunc(time.Second, func() { w.room[1] = true })
		var dst [1]outbound
		start := time.Now()
		k, _ := q.take(dst[:], 1, true)
		if d := time.Since(start); k != 1 || d > time.Second+watchEvery {
			t.Errorf("%d packets after %v", k, d)
		}
		q.close()
	})
}

// A flow that sends more than a slow peer can take loses a packet now and then, not
// all at once; one that does not loses none.
func TestSlowPeersQueueIsManaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{room: map[uint64]bool{1: true}, slow: map[uint64]bool{1: true}}
		q := w.queue()
		var dst [1]outbound
		sent, got := map[uint16]int{}, map[uint16]int{}
		put := func(flow uint16) {
			o := peerPacket(1, flow, 0, 1000)
			binary.BigEndian.PutUint16(o.raw.B[990:], flow)
			if q.put(o, 1000, true) {
				sent[flow]++
			}
		}
		for i := range 200 { // 2 s; each packet takes 10 ms
			put(1)
			put(1)
			if i%10 == 0 {
				put(2)
			}
			time.Sleep(10 * time.Millisecond)
			if k, _ := q.take(dst[:], 1, true); k == 1 {
				got[binary.BigEndian.Uint16(dst[0].raw.B[990:])]++
				dst[0].release()
			}
		}
		waiting := q.n()
		lost := sent[1] + sent[2] - got[1] - got[2] - waiting
		if got[2] < sent[2]-1 {
			t.Errorf("%d of %d packets of the sparse flow", got[2], sent[2])
		}
		if lost < 10 || lost > 100 {
			t.Errorf("%d packets were lost of %d", lost, sent[1])
		}
		q.close()
	})
}

// Many peers with and without room: nobody's packets are lost or change places.
func TestPeersKeepTheirOrder(t *testing.T) {
	w := &world{room: map[uint64]bool{}, slow: map[uint64]bool{}}
	q := w.queue()
	r := rand.New(rand.NewPCG(3, 4))
	var put, got [100]uint32
	var dst [64]outbound
	take := func() int {
		n, _ := q.take(dst[:], 1<<20, false)
		for i := range n {
			peer := dst[i].raw.B[18]
			if s := seqOf(dst[i]); s != got[peer] {
				t.Fatalf("peer %d: packet %d, want %d", peer, s, got[peer])
			}
			got[peer]++
			dst[i].release()
		}
		q.takes++ // as a take that waits does
		q.unpark()
		return n
	}
	for range 100_000 {
		peer := byte(r.IntN(len(put)))
		switch r.IntN(4) {
		case 0:
			w.room[uint64(peer)] = r.IntN(2) == 0
		case 1:
			take()
		default:
			if o := peerPacket(peer, 1, put[peer], 200); q.offer(o, 200) {
				put[peer]++
			} else {
				o.release()
			}
		}
	}
	for i := range put {
		w.room[uint64(i)] = true
	}
	for range 1000 {
		take()
	}
	if put != got || q.n() != 0 || q.prompt != (load{}) {
		t.Errorf("%d packets are left", q.n())
	}
	if len(q.shelves) > len(put) {
		t.Errorf("%d shelves", len(q.shelves))
	}
}
