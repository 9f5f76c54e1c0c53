package netstack

import (
	"io"
	"runtime"
	"testing"
	"weak"
)

// TestIdleConnectionHoldsNothing: what a connection was given to send can be collected
// while it stays open. Most are idle nearly all the time.
func TestIdleConnectionHoldsNothing(t *testing.T) {
	a, b := pair(t, 1420, 1420)
	l, at := listen(t, b, b4)
	c, err := a.DialTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	type buffer [32 << 10]byte
	written, filled := new(buffer), new(buffer)
	wayToWritten, wayToFilled := weak.Make(written), weak.Make(filled)
	if _, err := c.Write(written[:5]); err != nil {
		t.Fatal(err)
	}
	written = nil
	sent := func() { _, err = io.ReadFull(other, make([]byte, 5)) }
	if sent(); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if wayToWritten.Value() != nil {
		t.Error("it holds what was written")
	}
	fill := func(from *buffer) error {
		_, err := c.(*TCPConn).Fill(5, func(to []byte) (int, error) { return copy(to, from[:5]), nil })
		return err
	}
	if err := fill(filled); err != nil {
		t.Fatal(err)
	}
	filled = nil
	if sent(); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if wayToFilled.Value() != nil {
		t.Error("it holds what filled it")
	}
}
