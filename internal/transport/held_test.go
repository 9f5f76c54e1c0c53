package transport_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"podnet.dev/internal/paths"
	"podnet.dev/internal/transport"
)

// heard is the highest number that a node has received.
type heard struct {
	mu  sync.Mutex
	max uint32
}

func (n *node) hears() *heard {
	h := &heard{}
	n.onPacket(func(_ netip.Addr, p []byte) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.max = max(h.max, binary.BigEndian.Uint32(p))
	})
	return h
}

func (h *heard) last() uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.max
}

// behindNAT is a laptop that reaches a gateway by UDP.
func behindNAT(t *testing.T, mtu int) (laptop, gw *node, way *nat) {
	t.Helper()
	laptop, gw = newNode(t, mtu, transport.Options{}), newNode(t, mtu, transport.Options{})
	way = newNAT(t, gw.udpAddr())
	wantKind(t, laptop.gateway(t, gw, nil, way.addr()), transport.UDP, 10*time.Second)
	gw.echo()
	return laptop, gw, way
}

// speakers are the one that speaks, the laptop when it goes up, and the other one.
func speakers(laptop, gw *node, up bool) (from, to *node) {
	if up {
		return laptop, gw
	}
	return gw, laptop
}

// What is sent while UDP is cut arrives when it is not any more, though nobody
// repeats it: TCP would, but after a pause as long as the cut.
func TestLastWordsOfACutArrive(t *testing.T) {
	for name, c := range map[string]struct {
		cut time.Duration
		up  bool
	}{
		"up, and the path is only suspect": {900 * time.Millisecond, true},
		"up, and the path has died":        {4 * time.Second, true},
		"down, short":                      {1700 * time.Millisecond, false},
		"down, long":                       {4 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			laptop, gw, nat := behindNAT(t, 1280)
			newFlow(laptop, gw.addr, 100).mustExchange(t, 0, 3)
			from, to := speakers(laptop, gw, c.up)
			got := to.hears()
			nat.lose(everything)
			word := uint32(1)
			for start := time.Now(); time.Since(start) < c.cut; word++ {
				from.tun.send(packet(from.addr, to.addr, binary.BigEndian.AppendUint32(nil, word)))
				time.Sleep(100 * time.Millisecond)
			}
			if n := got.last(); n != 0 {
				t.Fatalf("word %d came through the cut", n)
			}
			nat.lose(nil)
			for start := time.Now(); got.last() != word-1; time.Sleep(5 * time.Millisecond) {
				if time.Since(start) > 10*time.Second {
					t.Fatalf("word %d of %d was the last that came", got.last(), word-1)
				}
			}
		})
	}
}

// A word after a rest is the first that nobody answers: that is noticed from the word
// on, and not from the next ping on.
func TestSilenceAfterAWordIsNoticed(t *testing.T) {
	laptop, gw := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
	way := newNAT(t, gw.udpAddr())
	g := laptop.gateway(t, gw, nil, way.addr())
	wantKind(t, g, transport.UDP, 10*time.Second)
	gw.echo()
	newFlow(laptop, gw.addr, 100).mustExchange(t, 0, 3)
	noticed := func() bool { // before the next ping is due
		last, rtt := time.Now(), g.Status().Active.RTT
		for rests := 0; rests < 2; time.Sleep(time.Millisecond) { // until the second pong that is the first for long
			if now := g.Status().Active.RTT; now != rtt {
				if time.Since(last) > 700*time.Millisecond {
					rests++
				}
				last, rtt = time.Now(), now
			}
		}
		way.lose(everything)
		defer way.lose(nil)
		laptop.tun.send(packet(laptop.addr, gw.addr, []byte("word")))
		for start := time.Now(); time.Since(start) < 900*time.Millisecond; time.Sleep(time.Millisecond) {
			if g.Status().Active.Suspect {
				return true
			}
		}
		return false
	}
	for try := 1; !noticed(); try++ { // a busy machine may miss the moment
		if try == 5 {
			t.Fatal("nobody notices")
		}
		wantKind(t, g, transport.UDP, 10*time.Second)
	}
}

// A path begins to swallow what is long, and everything else goes on as before. What
// was long arrives in pieces once the size is known, though nobody repeats it.
func TestLongWordsOfAShrinkingPathArrive(t *testing.T) {
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			laptop, gw, nat := behindNAT(t, 1420)
			newFlow(laptop, gw.addr, 1300).mustExchange(t, 0, 3)
			from, to := speakers(laptop, gw, up)
			got := to.hears()
			nat.lose(func(_ bool, size int) bool { return size > paths.MinDatagram })
			time.Sleep(200 * time.Millisecond) // TCP's first timeout: the word is its repetition
			word := make([]byte, 1300)
			binary.BigEndian.PutUint32(word, 1)
			from.tun.send(packet(from.addr, to.addr, word))
			for start := time.Now(); got.last() != 1; time.Sleep(5 * time.Millisecond) {
				if time.Since(start) > 20*time.Second {
					t.Fatal("it never came")
				}
				// Somebody makes use of the path, so that its size is asked for.
				laptop.tun.send(packet(laptop.addr, gw.addr, make([]byte, 1000)))
			}
		})
	}
}
