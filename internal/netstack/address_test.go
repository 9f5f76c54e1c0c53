package netstack

import (
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
