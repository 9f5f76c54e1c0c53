package netstack

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestDownloadGoesOnAfterTheDark loses everything for a while in the middle of
// a transfer, as when a path dies and the next one takes over. A whole window
// is gone then, and has to be sent again at the speed of the path.
func TestDownloadGoesOnAfterTheDark(t *testing.T) {
	goleak.VerifyNone(t)
	var dark atomic.Bool
	var wires sync.WaitGroup
	fresh := func() *Stack {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b := fresh(), fresh()
	if err := a.AddAddress(a4); err != nil {
		t.Fatal(err)
	}
	if err := b.AddAddress(b4); err != nil {
		t.Fatal(err)
	}
	wires.Go(func() { carry(a, b, &dark) })
	wires.Go(func() { carry(b, a, &dark) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wires.Wait()
		goleak.VerifyNone(t)
	})

	const size = 24 << 20
	ln, at := listen(t, a, a4)
	wires.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
	})
	c, err := b.DialTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, size/4); err != nil {
		t.Fatal(err)
	}
	dark.Store(true)
	time.AfterFunc(time.Second, func() { dark.Store(false) })
	start := time.Now()
	// 1.4 s is when it is sent again for the third time.
	_ = c.SetReadDeadline(start.Add(8 * time.Second))
	n, err := io.CopyN(sum, c, size-size/4)
	if err != nil {
		t.Fatalf("%d of %d bytes came within %v of the dark: %v", n, size-size/4, time.Since(start).Round(time.Millisecond), err)
	}
	t.Logf("the rest came within %v, 1 s of it dark", time.Since(start).Round(time.Millisecond))
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
	if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		t.Error("the data is not what was sent")
	}
}

// carry takes packets from one device to the other, except in the dark. What is
// on its way is a queue of some packets, so that there is a window to lose.
func carry(from, to *Stack, dark *atomic.Bool) {
	const offset = 16
	dev := from.Device()
	line := make(chan []byte, 1024)
	var far sync.WaitGroup
	defer far.Wait()
	defer close(line)
	far.Go(func() {
		for p := range line {
			if !dark.Load() {
				_, _ = to.Device().Write([][]byte{p}, offset)
			}
		}
	})
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		for i := range n {
			line <- slices.Clone(bufs[i][:offset+sizes[i]])
		}
	}
}
