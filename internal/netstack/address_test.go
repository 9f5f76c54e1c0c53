package netstack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestNewAddressReplacesOld is a laptop that is given another address: it
// speaks from the new one, and nothing comes to the old one any more.
func TestNewAddressReplacesOld(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	ln, at := listen(t, a, a4)
	dial := func() (ours, theirs net.Conn) {
		ours, err := b.DialTCP(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ours.Close() })
		if theirs, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { theirs.Close() })
		return ours, theirs
	}
	old, stale := dial()
	moved := netip.MustParseAddr("198.18.0.99")
	for range 2 { // the second time does nothing
		if err := errors.Join(b.AddAddress(moved), b.RemoveAddress(b4)); err != nil {
			t.Fatal(err)
		}
	}
	if b.IsLocal(b4) || !b.IsLocal(moved) {
		t.Error("the stack has the wrong addresses")
	}
	ours, theirs := dial()
	if from := theirs.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != moved {
		t.Errorf("speaks from %s, want %s", from, moved)
	}
	for c, want := range map[net.Conn]error{theirs: nil, stale: os.ErrDeadlineExceeded} {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		reader := ours
		if c == stale {
			reader = old
		}
		_ = reader.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := reader.Read(make([]byte, 5)); !errors.Is(err, want) {
			t.Errorf("read from %s: %v, want %v", reader.LocalAddr(), err, want)
		}
	}
}

// TestSpeaksFromTheAddressThatIsAsked: of a stack with several addresses.
func TestSpeaksFromTheAddressThatIsAsked(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	other := netip.MustParseAddr("198.18.0.98")
	if err := b.AddAddress(other); err != nil {
		t.Fatal(err)
	}
	ln, at := listen(t, a, a4)
	sock, err := a.ListenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	for _, from := range []netip.Addr{b4, other} {
		c, err := b.DialTCPFrom(t.Context(), from, at)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := theirs.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != from {
			t.Errorf("TCP: speaks from %s, want %s", got, from)
		}
		theirs.Close()
		c.Close()

		u, err := b.DialUDPFrom(from, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		_ = sock.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, client, err := sock.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "hello" || client.(*net.UDPAddr).AddrPort().Addr() != from {
			t.Errorf("UDP: %q from %v, %v", buf[:n], client, err)
		}
		for _, text := range []string{"hello, you", ""} {
			if _, err := sock.WriteTo([]byte(text), client); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			_ = u.SetReadDeadline(time.Now().Add(5 * time.Second))
			if n, err := u.ReadTo(&got); err != nil || n != len(text) || got.String() != text {
				t.Errorf("heard %q, %d, %v", got.String(), n, err)
			}
		}
		_ = u.SetReadDeadline(time.Now())
		if _, err := u.ReadTo(new(bytes.Buffer)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("nothing is heard: %v", err)
		}
		u.Close()
	}
	if _, err := b.DialTCPFrom(t.Context(), a4, at); err == nil {
		t.Error("it speaks from another's address")
	}
}
