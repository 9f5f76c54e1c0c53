package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/transport/inflight"
)

// testCarrier runs a carrier on one end of a pipe and returns the other.
func testCarrier(t *testing.T) (c *carrier, far net.Conn, ended <-chan error) {
	near, far := net.Pipe()
	var rx, tx atomic.Uint64
	c = newCarrier(NewBind(Options{}), near, &rx, &tx)
	c.ep = &streamEndpoint{c: c}
	done := make(chan error, 1)
	go func() { done <- c.run() }()
	if _, err := io.ReadFull(far, make([]byte, headerLen+inflight.Len)); err != nil { // every stream's first
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); c.close(errDown) })
	return c, far, done
}

// full is a batch that leaves no room behind it.
var full = [][]byte{message(sendQueue/2, 1), message(sendQueue/2, 1)}

// fill sends until a send has to wait and drops.
func fill(c *carrier) {
	for range 4 {
		c.send(full, nil)
	}
}

func TestStalledCarrierHoldsBackThenDropsThenDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, ended := testCarrier(t)
		start := time.Now()
		fill(c) // nobody reads
		if d := time.Since(start); d < stallAfter || d > 2*stallAfter {
			t.Errorf("send held its caller back for %v, want about %v", d, stallAfter)
		}
		before := c.tx.Load()
		start = time.Now()
		c.send([][]byte{message(1000, 1)}, nil)
		if d := time.Since(start); d != 0 {
			t.Errorf("a send to a stalled stream waited %v", d)
		}
		if c.tx.Load() != before {
			t.Error("a datagram was taken by a stalled stream")
		}
		time.Sleep(deadAfter)
		c.send([][]byte{message(1000, 1)}, nil)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "accepted nothing") {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestSlowCarrierLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := testCarrier(t)
		var got bytes.Buffer
		read := make(chan struct{})
		go func() { // 64 kB/s, a bad mobile link
			defer close(read)
			b := make([]byte, 32<<10)
			for {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				got.Write(b[:n])
				time.Sleep(time.Duration(n) * time.Second / (64 << 10))
			}
		}()
		var want []byte
		for i := range 200 {
			m := message(10_000, byte(i))
			c.send([][]byte{m, m[:500]}, nil)
			want = appendFrame(appendFrame(want, m), m[:500])
		}
		time.Sleep(time.Minute)
		far.Close()
		<-read
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d bytes arrived, want %d, unchanged", got.Len(), len(want))
		}
	})
}

func TestClosingSetsBlockedSendersFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, release := range map[string]func(*carrier, chan struct{}){
			"carrier": func(c *carrier, _ chan struct{}) { c.close(errDown) },
			"bind":    func(_ *carrier, cancel chan struct{}) { close(cancel) },
		} {
			c, _, _ := testCarrier(t)
			c.send(full, nil)
			synctest.Wait()
			c.send(full, nil)
			cancel, free := make(chan struct{}), make(chan struct{})
			go func() {
				c.send([][]byte{message(1000, 1)}, cancel)
				close(free)
			}()
			synctest.Wait()
			select {
			case <-free:
				t.Errorf("%s: the sender was not held back", name)
			default:
			}
			start := time.Now()
			release(c, cancel)
			<-free
			if d := time.Since(start); d != 0 {
				t.Errorf("%s: the sender was set free %v later", name, d)
			}
		}
	})
}

// The device takes frames at its own pace and may be closed and opened in
// between; nothing is lost and nobody is wedged.
func TestReceiveCarriesFramesAcrossReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := testCarrier(t)
		b := c.b
		go func() {
			var w []byte
			for i := range 10 {
				w = appendFrame(w, message(100, byte(i)))
				w = appendFrame(w, []byte("ping")) // not for the device
			}
			far.Write(w)
		}()
		bufs, sizes, eps := [][]byte{make([]byte, 2000), make([]byte, 2000), make([]byte, 2000)}, make([]int, 3), make([]conn.Endpoint, 3)
		next := byte(0)
		for next < 10 {
			open := make(chan struct{})
			n, err := b.receiveStreams(open, bufs, sizes, eps)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if m := bufs[i][:sizes[i]]; !bytes.Equal(m, message(100, next)) {
					t.Fatalf("message %d is %x", next, m)
				}
				next++
			}
			close(open)
			if _, err := b.receiveStreams(open, bufs, sizes, eps); !errors.Is(err, net.ErrClosed) {
				t.Fatalf("receive on a closed Bind: %v", err)
			}
		}
	})
}

func TestSilentVisitorIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- greet(near, true) }()
		far.Write(preamble[:3])
		if err := <-done; err == nil || !strings.Contains(err.Error(), "no preamble") {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d != preambleTimeout {
			t.Errorf("closed after %v, want %v", d, preambleTimeout)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the visitor reads %v, want the end", err)
		}
	})
}

func TestOtherVersionsTellEachOther(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() { done <- greet(near, true) }()
	theirs := preamble
	theirs[7] = 9
	if _, err := far.Write(theirs[:]); err != nil {
		t.Fatal(err)
	}
	var ours [preambleLen]byte
	if _, err := io.ReadFull(far, ours[:]); err != nil || ours != preamble {
		t.Errorf("the visitor is told %q, %v; want our version", ours, err)
	}
	var v VersionError
	if err := <-done; !errors.As(err, &v) || v.Theirs != 9 {
		t.Errorf("error %v, want a VersionError with 9", err)
	}
}
