package forward_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/netstack"
)

func TestTransferBothWays(t *testing.T) {
	size := int64(100 << 20)
	if testing.Short() {
		size = 10 << 20
	}
	for _, pod := range []netip.Addr{pod4, pod6} {
		t.Run(pod.String(), func(t *testing.T) {
			w := newWorld(t)
			up := make(chan string, 1)
			at := listen(t, pod, func(c *net.TCPConn) {
				var wg sync.WaitGroup
				wg.Go(func() {
					io.Copy(c, stream(1, size))
					c.CloseWrite()
				})
				up <- digest(t, c)
				wg.Wait()
			})
			c := w.dial(t, at)
			var wg sync.WaitGroup
			wg.Go(func() {
				io.Copy(c, stream(2, size))
				c.CloseWrite()
			})
			if got := digest(t, c); got != digest(t, stream(1, size)) {
				t.Error("download arrived changed")
			}
			if got := <-up; got != digest(t, stream(2, size)) {
				t.Error("upload arrived changed")
			}
			wg.Wait()
			s := w.f.Stats()
			if s.BytesUp != uint64(size) || s.BytesDown != uint64(size) || s.TotalTCP != 1 {
				t.Errorf("stats do not add up: %+v", s)
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		all, err := io.ReadAll(c) // until the laptop has closed its half
		if err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintf(c, "got %d bytes", len(all))
	})
	c := w.dial(t, at)
	c.Write(make([]byte, 12345))
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != "got 12345 bytes" {
		t.Errorf("answer after half-close: %q, %v", answer, err)
	}
}

func TestResetTravelsBothWays(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	})
	c := w.dial(t, at)
	c.Write([]byte("x"))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("laptop sees %v, want a reset", err)
	}

	seen := make(chan error, 1)
	at = listen(t, pod4, func(c *net.TCPConn) {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := c.Read(make([]byte, 1))
		seen <- err
	})
	c = w.dial(t, at)
	io.ReadFull(c, make([]byte, 1))
	c.Reset()
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("pod sees %v, want a reset", err)
	}
}

func TestManyShortConnections(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, func(c *net.TCPConn) {
		b := make([]byte, 64)
		n, _ := io.ReadFull(c, b[:8])
		c.Write(b[:n])
	})
	total, workers := 3000, 16
	if testing.Short() {
		total = 500
	}
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for next.Add(1) <= int64(total) {
				var want, got [8]byte
				rand.Read(want[:])
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				c, err := w.laptop.DialTCP(ctx, at)
				cancel()
				if err == nil {
					c.Write(want[:])
					_, err = io.ReadFull(c, got[:])
					if err == nil && want != got {
						err = errors.New("wrong answer")
					}
					c.Close()
				}
				if err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d connections failed", n, total)
	}
}

func TestThousandFlows(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, echo)
	n := 1000
	if testing.Short() {
		n = 100
	}
	conns := make([]*netstack.TCPConn, n)
	for i := range conns {
		conns[i] = w.dial(t, at)
	}
	if got := w.f.Stats().OpenTCP; got != n {
		t.Errorf("%d flows open, want %d", got, n)
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			want := []byte(fmt.Sprintf("flow %d", i))
			c.Write(want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("flow %d: %q, %v", i, got, err)
			}
			c.Close()
		})
	}
	wg.Wait()
}
