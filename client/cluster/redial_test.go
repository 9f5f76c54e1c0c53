package cluster

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRedialLeavesADeadConnection: the laptop has moved to another network, and
// what it sends on the old connection goes nowhere.
func TestRedialLeavesADeadConnection(t *testing.T) {
	f := newFakeAPI(t)
	var cut atomic.Bool
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var dials atomic.Int32
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			first := dials.Add(1) == 1
			out, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _ = in.Close(); _ = out.Close() })
			go func() { _, _ = io.Copy(in, out) }()
			go func() {
				b := make([]byte, 4096)
				for {
					n, err := in.Read(b)
					if err != nil {
						return
					}
					if !first || !cut.Load() {
						_, _ = out.Write(b[:n])
					}
				}
			}()
		}
	}()
	c := openTest(t, "http://"+ln.Addr().String(), "")
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	cut.Store(true)
	began := time.Now()
	c.Redial()
	if err := c.Check(t.Context()); err != nil || time.Since(began) > requestTimeout/2 {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("dialled %d times, want 2", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.conns); n != 1 {
		t.Errorf("%d connections are tracked, want 1", n)
	}
}
