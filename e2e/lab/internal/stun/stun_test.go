package stun

import (
	"bytes"
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

// The addresses are those of RFC 5769's sample responses, and so is the
// transaction.
var (
	request, _ = hex.DecodeString("000100002112a442b7e7a701bc34d686fa87dfae")
	samples    = map[string]string{
		"192.0.2.1:32853": "002000080001a147e112a643",
		"[2001:db8:1234:5678:11:2233:4455:6677]:32853": "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
	}
)

func TestAnswersAreThoseOfTheRFC(t *testing.T) {
	for addr, attribute := range samples {
		from := netip.MustParseAddrPort(addr)
		want, _ := hex.DecodeString(attribute)
		got, ok := Answer(request, from)
		if !ok || !bytes.Equal(got[headerSize:], want) {
			t.Errorf("%s: %x, want %x", addr, got, want)
		}
		if seen, err := mapped(got, request); err != nil || seen != from {
			t.Errorf("%s reads as %v, %v", addr, seen, err)
		}
	}
}

func TestServerAnswersOnEverySocket(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var sockets []*net.UDPConn
	for range 2 {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	done := make(chan error)
	go func() { done <- Serve(ctx, sockets...) }()
	me, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer me.Close()
	for _, s := range sockets {
		seen, err := Ask(me, s.LocalAddr().(*net.UDPAddr).AddrPort())
		if err != nil || seen.String() != me.LocalAddr().String() {
			t.Errorf("seen as %v, %v, want %v", seen, err, me.LocalAddr())
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(request)
	f.Add(append(bytes.Clone(request[:3]), 4))
	from := netip.MustParseAddrPort("203.0.113.22:40000")
	f.Fuzz(func(t *testing.T, b []byte) {
		if answer, ok := Answer(b, from); ok {
			if seen, err := mapped(answer, b); err != nil || seen != from {
				t.Errorf("%x answers %x: %v, %v", b, answer, seen, err)
			}
		}
		_, _ = mapped(b, request)
	})
}
