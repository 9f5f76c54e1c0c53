package forward_test

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func TestUDP(t *testing.T) {
	for _, pod := range []netip.Addr{pod4, pod6} {
		t.Run(pod.String(), func(t *testing.T) {
			w := newWorld(t)
			at, server := udpEcho(t, pod)
			c, err := w.laptop.DialUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range []int{0, 1, 1200, 1392, 1500, 9000, 60000} { // the last three in fragments
				want := bytes.Repeat([]byte{byte(n)}, n)
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				got := make([]byte, 65535)
				k, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:k], want) {
					t.Fatalf("echo of %d bytes: %d bytes, %v", n, k, err)
				}
			}
			if s := w.f.Stats(); s.OpenUDP != 1 || s.TotalUDP != 1 {
				t.Errorf("one conversation is %+v", s)
			}
			server.Close()
			c.Write([]byte("?"))
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("read from a closed port: %v", err)
			}
		})
	}
}

func TestUDPFlowLimit(t *testing.T) {
	w := newWorld(t)
	at, _ := udpEcho(t, pod4)
	for i := range 600 {
		c, err := w.laptop.DialUDP(at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write([]byte{byte(i)})
		if i < 512 {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatalf("flow %d: %v", i, err)
			}
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for w.f.Stats().OverLimit < 88 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if s := w.f.Stats(); s.OpenUDP != 512 || s.OverLimit != 88 {
		t.Errorf("512 flows of 600 may be open: %+v", s)
	}
}
