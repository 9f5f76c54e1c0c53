package gate

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
)

// host sends one batch of packets.
type host struct {
	tun.Device
	batch [][]byte
}

func (h host) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range h.batch {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(h.batch), nil
}

func datagram(to string, size int) []byte {
	dst := netip.MustParseAddrPort(to)
	src := netip.MustParseAddrPort("198.18.0.4:4000")
	if dst.Addr().Is6() {
		src = netip.MustParseAddrPort("[fd00::4]:4000")
	}
	b := make([]byte, packet.HeaderIP(dst.Addr())+8+size)
	packet.PutIP(b, packet.UDP, src.Addr(), dst.Addr())
	packet.PutUDP(b, src, dst)
	return b
}

func TestGate(t *testing.T) {
	dns, dns6 := "198.18.0.1:53", "[fd00::1]:53"
	echo := make([]byte, 28)
	packet.PutEchoRequest(echo, netip.MustParseAddr("198.18.0.4"), netip.MustParseAddr("198.18.0.1"), 1, 1)
	batch := [][]byte{datagram("10.96.0.7:80", 1), datagram(dns, 2), {0x45}, datagram("[fd00::9]:80", 3), datagram(dns6, 700), echo, datagram("198.18.0.1:80", 4), datagram(dns, 5)}
	for shut, want := range map[bool][][]byte{false: batch, true: {batch[1], batch[4], batch[7]}} {
		d := New(host{batch: batch}, func() bool { return shut }, func(to netip.AddrPort) bool { return to.String() == dns || to.String() == dns6 })
		bufs, sizes := make([][]byte, len(batch)), make([]int, len(batch))
		for i := range bufs {
			bufs[i] = make([]byte, 2048)
		}
		const offset = 16
		n, err := d.Read(bufs, sizes, offset)
		if err != nil || n != len(want) {
			t.Fatalf("shut %v: %d packets, %v", shut, n, err)
		}
		for i := range n {
			if got := bufs[i][offset : offset+sizes[i]]; !bytes.Equal(got, want[i]) {
				t.Errorf("shut %v: packet %d is %x, want %x", shut, i, got, want[i])
			}
		}
	}
}
