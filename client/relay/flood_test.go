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

// silent6 is an agent that says nothing to any answer.
var silent6 = netip.MustParseAddr("fd70:6f64:6e65:7400::c")

// deliver has a packet come out of the tunnel.
func (w *world) deliver(p []byte) {
	w.t.Helper()
	const offset = 16
	if _, err := w.relay.Device().Write([][]byte{append(make([]byte, offset), p...)}, offset); err != nil {
		w.t.Fatal(err)
	}
}

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
	r.Agents[silent6] = Pod{Namespace: "shop", Name: "web-2", UID: "uid-2", Object: "ada-web-2"}
	w := newWorld(t, r)
	for port := range uint16(2 * maxFlows) {
		w.deliver(syn(netip.AddrPortFrom(silent6, 10000+port), netip.AddrPortFrom(relay6, 20000)))
		if port%512 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	until(t, "they are there", func() bool { return open.Load() >= maxFromOne/2 })
	for _, port := range []uint16{20000, control.LivePort} {
		until(t, "an agent of another pod gets through", func() bool {
			_, err := w.dial(port)
			return err == nil
		})
	}
	if n := most.Load(); n > maxFromOne+10 {
		t.Errorf("the local program has %d connections", n)
	}
}

// An agent that sends from ever other ports leaves room for those of other pods.
func TestDatagramsOfOneAgentAreBounded(t *testing.T) {
	r := udpRule("dns", 20000, udpEcho(t, "127.0.0.1", ">"))
	r.Agents[silent6] = Pod{Namespace: "shop", Name: "web-2", UID: "uid-2", Object: "ada-web-2"}
	w := newWorld(t, r)
	for port := range uint16(maxUDP + 10) {
		src, dst := netip.AddrPortFrom(silent6, 10000+port), netip.AddrPortFrom(relay6, 20000)
		p := make([]byte, packet.HeaderIP(relay6)+packet.HeaderUDP+1)
		packet.PutUDP(p, src, dst)
		w.deliver(p)
	}
	c := w.dialUDP(20000)
	until(t, "an agent of another pod is answered", func() bool { return ask(t, c, []byte("x"), 200*time.Millisecond) != nil })
}
