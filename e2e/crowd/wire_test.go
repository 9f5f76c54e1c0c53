package crowd

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestWireFailsAsAsked sends datagrams over a wire to somebody who sends them
// back with the port they came from.
func TestWireFailsAsAsked(t *testing.T) {
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = far.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 100)
		for {
			_, from, err := far.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = far.WriteToUDPAddrPort([]byte(from.String()), from)
		}
	}()
	w := NewWire()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	to := far.LocalAddr().(*net.UDPAddr).AddrPort()
	via, err := w.Via(to)
	again, errAgain := w.Via(to)
	if err != nil || errAgain != nil || via == to || again != via {
		t.Fatalf("%v, then %v: %v, %v", via, again, err, errAgain)
	}
	near, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(via))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	ask := func() (netip.AddrPort, error) {
		if _, err := near.Write([]byte("where from?")); err != nil {
			t.Fatal(err)
		}
		_ = near.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		b := make([]byte, 100)
		n, err := near.Read(b)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return netip.ParseAddrPort(string(b[:n]))
	}
	first, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	w.Block(true)
	if _, err := ask(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("blocked: %v", err)
	}
	w.Block(false)
	if same, err := ask(); err != nil || same != first {
		t.Errorf("from %v after a cut, %v before: %v", same, first, err)
	}
	w.Rebind()
	if other, err := ask(); err != nil || other == first {
		t.Errorf("from %v after a rebinding, %v before: %v", other, first, err)
	}
}

func TestStreamsAreCutOrLost(t *testing.T) {
	w := NewWire()
	open := func() (near, far net.Conn) {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = b.Close() })
		return w.Stream(a), b
	}
	near, far := open()
	w.Cut()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the far end of a cut stream: %v", err)
	}
	_ = near.Close()

	near, far = open()
	w.Lose()
	if _, err := near.Write([]byte("anyone?")); err != nil {
		t.Errorf("a lost stream told: %v", err)
	}
	heard := make(chan error, 1)
	go func() {
		_, err := near.Read(make([]byte, 1))
		heard <- err
	}()
	if _, err := far.Write([]byte("hello")); err != nil { // taken, and swallowed
		t.Fatal(err)
	}
	_ = near.Close()
	if err := <-heard; err == nil {
		t.Error("a lost stream was heard")
	}
	if left := w.open(); len(left) > 0 {
		t.Errorf("%d streams are still known", len(left))
	}
}
