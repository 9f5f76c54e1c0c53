package front

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func addrOf(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

func listen(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, addrOf(l.Addr())
}

func TestPodsTakeTurns(t *testing.T) {
	_, a := listen(t)
	_, b := listen(t)
	gone, c := listen(t)
	gone.Close() // it refuses, and is ready nevertheless
	var p Pods
	dial := func() (netip.AddrPort, error) {
		conn, err := p.Dial(context.Background(), 80)
		if err != nil {
			return netip.AddrPort{}, err
		}
		defer conn.Close()
		return addrOf(conn.RemoteAddr()), nil
	}
	if _, err := dial(); err == nil || !strings.Contains(err.Error(), "no pod is ready for port 80") {
		t.Errorf("without pods: %v", err)
	}
	p.Set(map[uint16][]netip.AddrPort{80: {a, c, b}, 81: {c}})
	got := map[netip.AddrPort]int{}
	for range 30 {
		at, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		got[at]++
	}
	if got[a] != 10 || got[b] != 20 { // who comes after the one that refuses
		t.Errorf("the pods got %v", got)
	}
	if _, err := p.Dial(context.Background(), 81); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("where all refuse: %v", err)
	}
	p.Set(map[uint16][]netip.AddrPort{80: {b}})
	if at, err := dial(); err != nil || at != b {
		t.Errorf("got %v, %v, want the one that is left", at, err)
	}
	p.Allow = func(at netip.AddrPort) bool { return at == a }
	if _, err := dial(); err == nil || !strings.Contains(err.Error(), "no address of a pod") {
		t.Errorf("somewhere else: %v", err)
	}
	p.Set(map[uint16][]netip.AddrPort{80: {b, a}})
	if at, err := dial(); err != nil || at != a {
		t.Errorf("got %v, %v, want the one that may be", at, err)
	}
}

func TestListenKeepsToItsPorts(t *testing.T) {
	seen := map[uint16]bool{}
	for range 5 {
		l, err := Listen(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := addrOf(l.Addr()).Port()
		if port < FirstPort || port > LastPort || seen[port] {
			t.Errorf("port %d", port)
		}
		seen[port] = true
	}
}
