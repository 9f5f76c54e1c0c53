package relay

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
)

// syn is a packet that opens a connection, of one who will not go on with it.
func syn(src, dst netip.AddrPort) []byte {
	const header = 20
	b := make([]byte, packet.HeaderIP(dst.Addr())+header)
	packet.PutIP(b, packet.TCP, src.Addr(), dst.Addr())
	tcp := b[len(b)-header:]
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[7], tcp[12], tcp[13], tcp[14] = 42, header/4<<4, 2, 0xff // sequence number, length, SYN, window
	from, to := src.Addr().As16(), dst.Addr().As16()
	binary.BigEndian.PutUint16(tcp[16:], ^packet.Sum(tcp, packet.PseudoSum(packet.TCP, from[:], to[:], header)))
	return b
}

// An agent that begins connections and never ends a handshake: each would take a
// connection to the local program, and the relay's room from the agents of other pods.
func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	var open, most atomic.Int64
	local := listen(t, "127.0.0.1", func(c net.Conn) {
		if n := open.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer open.Add(-1)
		_, _ = io.Copy(io.Discard, c)
	})
	r := rule("web", 20000, local)
	silent6 := netip.MustParseAddr("fd70:6f64:6e65:7400::c") // which says nothing to an answer
	r.Agents[silent6] = Pod{Namespace: "shop", Name: "web-2", UID: "uid-2", Object: "ada-web-2"}
	w := newWorld(t, r)
	const offset = 16
	for port := range uint16(2 * maxFlows) {
		p := syn(netip.AddrPortFrom(silent6, 10000+port), netip.AddrPortFrom(relay6, 20000))
		if _, err := w.relay.Device().Write([][]byte{append(make([]byte, offset), p...)}, offset); err != nil {
			t.Fatal(err)
		}
		if port%512 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	until(t, "they are there", func() bool { return open.Load() >= maxFromOne })
	for _, port := range []uint16{20000, control.LivePort} {
		if _, err := w.dial(port); err != nil {
			t.Errorf("an agent of another pod: %v", err)
		}
	}
	if n := most.Load(); n > maxFromOne+1 {
		t.Errorf("the local program has %d connections", n)
	}
}
