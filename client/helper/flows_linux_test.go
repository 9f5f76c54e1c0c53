package helper

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestResetFlowsEndsThoseOfTheTunnelOnly: a program that waits for an answer of
// a gateway that is no more gets an error, and everybody else is left alone.
func TestResetFlowsEndsThoseOfTheTunnelOnly(t *testing.T) {
	inNetns(t)
	for _, args := range []string{"link set lo up", "addr add 198.18.0.5/32 dev lo", "addr add fd70::5/128 dev lo", "addr add 10.96.0.1/32 dev lo", "addr add fd70::1/128 dev lo"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", args, err, out)
		}
	}
	local := []netip.Addr{netip.MustParseAddr("198.18.0.5"), netip.MustParseAddr("fd70::5")}
	// pair is a flow from one address to another, and the listener it was made by.
	pair := func(from, to string) (net.Conn, net.Conn, net.Listener) {
		t.Helper()
		l, err := net.Listen("tcp", net.JoinHostPort(to, "0"))
		if err != nil {
			t.Fatal(err)
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		a, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close(); l.Close() })
		return a, b, l
	}
	flow4, _, _ := pair("198.18.0.5", "10.96.0.1")
	flow6, _, _ := pair("fd70::5", "fd70::1")
	own, ownFar, listener := pair("198.18.0.5", "198.18.0.5")
	other, otherFar, _ := pair("10.96.0.1", "10.96.0.1")

	s := &session{}
	n, err := s.ResetFlows(t.Context(), local)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip(err)
	}
	if err != nil || n != 2 {
		t.Fatalf("%d flows, %v, want 2", n, err)
	}
	for _, c := range []net.Conn{flow4, flow6} {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("the flow of %s got %v, want ECONNABORTED", c.LocalAddr(), err)
		}
	}
	for _, c := range [][2]net.Conn{{own, ownFar}, {other, otherFar}} {
		_ = c[1].SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c[0].Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c[1], make([]byte, 1)); err != nil {
			t.Errorf("the flow of %s was touched: %v", c[0].LocalAddr(), err)
		}
	}
	if c, err := net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Errorf("the listener is gone: %v", err)
	} else {
		_ = c.Close()
	}
	if n, err := s.ResetFlows(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("nothing asked: %d, %v", n, err)
	}
}
