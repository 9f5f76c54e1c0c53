package transport_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"podnet.dev/internal/key"
	"podnet.dev/internal/measure"
	"podnet.dev/internal/transport"
)

// forged is a handshake's beginning as nobody's key makes it, with what shows that its
// sender knows the gateway's public key: mac1 of WireGuard's protocol (section 5.4.4).
func forged(t testing.TB, to key.Public) []byte {
	t.Helper()
	m := make([]byte, 148)
	if _, err := rand.Read(m); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(m, 1)
	k := blake2s.Sum256(append([]byte("mac1----"), to[:]...))
	mac, err := blake2s.New128(k[:])
	if err != nil {
		t.Fatal(err)
	}
	mac.Write(m[:116])
	copy(m[116:132], mac.Sum(nil))
	clear(m[132:])
	return m
}

// TestStrangersHandshakesAreNotAnswered: who knows the gateway's public key and is no
// peer hears nothing, or, of a gateway that has too much to do, a cookie.
func TestStrangersHandshakesAreNotAnswered(t *testing.T) {
	gw := newNode(t, 1420, transport.Options{})
	c, err := net.Dial("udp4", gw.udpAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := func(within time.Duration) (n, bytes int) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(within))
		for b := make([]byte, 2000); ; n++ {
			got, err := c.Read(b)
			if err != nil {
				return n, bytes
			}
			if got > 64 || binary.LittleEndian.Uint32(b) != 3 {
				t.Errorf("an answer of %d bytes begins with %x", got, b[:4])
			}
			bytes += got
		}
	}
	c.Write(forged(t, gw.public()))
	if n, _ := answers(300 * time.Millisecond); n > 0 {
		t.Errorf("a stranger's handshake is answered %d times", n)
	}
	const many = 5000
	all := make([][]byte, many)
	for i := range all {
		all[i] = forged(t, gw.public())
	}
	for _, m := range all {
		c.Write(m)
	}
	n, bytes := answers(300 * time.Millisecond)
	t.Logf("MEASURED [18] bytes in reply to %d of a stranger's handshakes (cookies only, each smaller)  %d in %d cookies", many*148, bytes, n)
	if n > many {
		t.Errorf("%d answers to %d handshakes", n, many)
	}
}

// TestHandshakeFloodDelaysNobody has one visitor of the stream listener begin 10,000
// handshakes a second while laptops come by streams of their own.
func TestHandshakeFloodDelaysNobody(t *testing.T) {
	const (
		rate  = 10_000
		burst = 100
		limit = 500 * time.Millisecond
	)
	gw := newNode(t, 1420, transport.Options{})
	a := gw.serve(t)
	gw.echo()
	laptops := make([]*node, 10)
	for i := range laptops {
		laptops[i] = newNode(t, 1420, transport.Options{})
	}
	setAll(t, gw, laptops)
	come := func(some []*node) (took []time.Duration) {
		for _, l := range some {
			began := time.Now()
			l.reach(t, gw, dialTo(a))
			newFlow(l, gw.addr, 100).mustExchange(t, 0, 1)
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took
	}
	quiet := come(laptops[:3])

	eve := visit(t, a)
	go func() { _, _ = io.Copy(io.Discard, eve) }()
	var sent atomic.Int64
	quit, over := make(chan struct{}), make(chan struct{})
	frame := binary.BigEndian.AppendUint16(nil, 148)
	frame = append(frame, forged(t, gw.public())...)
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Second * burst / rate)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if _, err := eve.Write(slices.Repeat(frame, burst)); err != nil {
				return
			}
			sent.Add(burst)
		}
	}()
	began := time.Now()
	time.Sleep(500 * time.Millisecond) // the flood is at its height
	flooded := come(laptops[3:])
	perSecond := float64(sent.Load()) / time.Since(began).Seconds()
	close(quit)
	_ = eve.Close()
	<-over
	late := flooded[len(flooded)-1] - quiet[len(quiet)-1]
	measure.AtMost(t, fmt.Sprintf("[19] the slowest handshake beside %.0f forged ones a second on another stream, as against the slowest without", perSecond), late, limit)
	if late > limit {
		t.Errorf("handshakes take %v longer, at most %v", late, limit)
	}
}
