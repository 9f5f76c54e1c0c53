package forward_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// BenchmarkOpen is a connection through the gateway, with a byte there and back.
func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	at := listen(b, pod4, echo)
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		c, err := w.laptop.DialTCP(ctx, at)
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}

// BenchmarkDownload is a MiB from the target.
func BenchmarkDownload(b *testing.B) {
	w := newWorld(b)
	block := make([]byte, 1<<20)
	c := w.dial(b, listen(b, pod4, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}))
	got := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
	}
	c.Reset()
}

// BenchmarkUpload is a MiB to the target.
func BenchmarkUpload(b *testing.B) {
	w := newWorld(b)
	c := w.dial(b, listen(b, pod4, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }))
	block := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	c.Reset()
}

// BenchmarkEcho is a byte there and back on a connection that stays.
func BenchmarkEcho(b *testing.B) {
	w := newWorld(b)
	c := w.dial(b, listen(b, pod4, echo))
	one := make([]byte, 1)
	for b.Loop() {
		if _, err := c.Write(one); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDatagram is a datagram there and back.
func BenchmarkDatagram(b *testing.B) {
	w := newWorld(b)
	at, _ := udpEcho(b, pod4)
	c, err := w.laptop.DialUDP(at)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 1<<16)
	for b.Loop() {
		if _, err := c.Write(got[:1200]); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(got); err != nil {
			b.Fatal(err)
		}
	}
}
