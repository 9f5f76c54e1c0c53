package keep

import (
	"net/netip"
	"testing"

	"podnet.dev/gateway/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

var (
	anAgent, aLaptop = key.Public{1}.Address6(), key.Public{2}.RelayAddress6()
	tiedPorts        = []steering.Tie{
		{Agent: anAgent, Laptop: aLaptop, Port: control.LivePort, Proto: steer.TCP},
		{Agent: anAgent, Laptop: aLaptop, Port: 20000, Proto: steer.TCP},
		{Agent: anAgent, Laptop: aLaptop, Port: 20001, Proto: steer.UDP},
	}
)

// datagram is a UDP packet of n bytes of payload.
func datagram(src, dst netip.AddrPort, n int) []byte {
	b := make([]byte, packet.HeaderIP(src.Addr())+packet.HeaderUDP+n)
	packet.PutUDP(b, src, dst)
	return b
}

// segment is a TCP packet with that flags.
func segment(src, dst netip.AddrPort, flags byte) []byte {
	b := make([]byte, packet.HeaderIP(src.Addr())+20)
	packet.PutIP(b, packet.TCP, src.Addr(), dst.Addr())
	h := b[packet.HeaderIP(src.Addr()):]
	h[0], h[1], h[2], h[3] = byte(src.Port()>>8), byte(src.Port()), byte(dst.Port()>>8), byte(dst.Port())
	h[12], h[13] = 5<<4, flags
	return b
}

func unreachable(about []byte) []byte {
	b := make([]byte, packet.UnreachableSize(about))
	packet.PutUnreachable(b, about, packet.NoHost)
	return b
}

func TestOnlyTiesLetPacketsPass(t *testing.T) {
	at := netip.AddrPortFrom
	other := key.Public{3}
	table := newTies(tiedPorts)
	const syn, ack = 2, 16
	for _, c := range []struct {
		what string
		b    []byte
		want bool
	}{
		{"agent to the rule's port", segment(at(anAgent, 40000), at(aLaptop, 20000), syn), true},
		{"agent to the live port", segment(at(anAgent, 40000), at(aLaptop, control.LivePort), syn), true},
		{"the answer", segment(at(aLaptop, 20000), at(anAgent, 40000), syn|ack), true},
		{"agent to the rule's port by UDP", datagram(at(anAgent, 40000), at(aLaptop, 20001), 10), true},
		{"the answer by UDP", datagram(at(aLaptop, 20001), at(anAgent, 40000), 10), true},
		{"agent to another port", segment(at(anAgent, 40000), at(aLaptop, 22), syn), false},
		{"agent from the rule's port to another", segment(at(anAgent, 20000), at(aLaptop, 22), syn), false},
		{"agent to TCP's port by UDP", datagram(at(anAgent, 40000), at(aLaptop, 20000), 10), false},
		{"agent to UDP's port by TCP", segment(at(anAgent, 40000), at(aLaptop, 20001), syn), false},
		{"laptop to a port of the pod", segment(at(aLaptop, 40000), at(anAgent, 20000), syn), false},
		{"another agent", segment(at(other.Address6(), 40000), at(aLaptop, 20000), syn), false},
		{"another laptop", segment(at(anAgent, 40000), at(other.RelayAddress6(), 20000), syn), false},
		{"the laptop's other address", segment(at(anAgent, 40000), at(key.Public{2}.Address6(), 20000), syn), false},
		{"laptop to laptop", segment(at(aLaptop, 20000), at(other.RelayAddress6(), 40000), syn), false},
		{"IPv4", datagram(netip.MustParseAddrPort("198.18.0.2:40000"), netip.MustParseAddrPort("198.18.0.3:20001"), 10), false},
		{"nobody listens there", unreachable(datagram(at(anAgent, 40000), at(aLaptop, 20001), 10)), true},
		{"the agent has gone", unreachable(datagram(at(aLaptop, 20001), at(anAgent, 40000), 10)), true},
		{"an error about something else", unreachable(datagram(at(anAgent, 40000), at(aLaptop, 53), 10)), false},
		{"an error about somebody else's", unreachable(datagram(at(other.Address6(), 40000), at(aLaptop, 20001), 10)), false},
		{"cut short", segment(at(anAgent, 40000), at(aLaptop, 20000), syn)[:44], false},
	} {
		p, ok := packet.Parse(c.b)
		if got := ok && table.claims(&p); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	if p, _ := packet.Parse(segment(at(anAgent, 40000), at(aLaptop, 20000), syn)); newTies(nil).claims(&p) {
		t.Error("it passes without a tie")
	}
}

// Each fragment of a large datagram passes, and none of what may not.
func TestFragmentsPass(t *testing.T) {
	at := netip.AddrPortFrom
	table := newTies(tiedPorts)
	pass := func(b []byte) (n, of int) {
		var pieces [][]byte
		packet.Fragment(b, 1280, func(n int) []byte {
			pieces = append(pieces, make([]byte, n))
			return pieces[len(pieces)-1]
		})
		for _, piece := range pieces {
			if p, ok := packet.Parse(piece); ok && table.claims(&p) {
				n++
			}
		}
		return n, len(pieces)
	}
	if n, of := pass(datagram(at(anAgent, 40000), at(aLaptop, 20001), 4000)); n != of || of < 4 {
		t.Errorf("%d of %d fragments pass", n, of)
	}
	// Those without ports cannot be told apart, and are worth nothing.
	if n, of := pass(datagram(at(anAgent, 40000), at(aLaptop, 53), 4000)); n != of-1 {
		t.Errorf("%d of %d fragments for another port pass", n, of)
	}
	b := append(segment(at(anAgent, 40000), at(aLaptop, 20000), 16), make([]byte, 4000)...)
	b[4], b[5] = byte((len(b)-40)>>8), byte(len(b)-40)
	if n, of := pass(b); n != 0 || of < 4 {
		t.Errorf("%d of %d fragments of TCP pass", n, of)
	}
}

func BenchmarkClaims(b *testing.B) {
	p, _ := packet.Parse(segment(netip.AddrPortFrom(anAgent, 40000), netip.AddrPortFrom(aLaptop, 20000), 16))
	table := newTies(tiedPorts)
	b.ReportAllocs()
	for b.Loop() {
		table.claims(&p)
	}
}

// FuzzClaims gives the gateway whatever a peer might send: between peers only what is
// between the two of a tie passes, and of what has ports only to or from the tie's.
func FuzzClaims(f *testing.F) {
	at := netip.AddrPortFrom
	for _, b := range [][]byte{
		segment(at(anAgent, 40000), at(aLaptop, 20000), 2), datagram(at(aLaptop, 20001), at(anAgent, 40000), 10),
		unreachable(datagram(at(aLaptop, 20001), at(anAgent, 40000), 10)), segment(at(anAgent, 20000), at(aLaptop, 22), 2),
	} {
		f.Add(b)
	}
	table := newTies(tiedPorts)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := packet.Parse(b)
		if !ok || !table.claims(&p) {
			return
		}
		there := p.Src == anAgent && p.Dst == aLaptop
		if !there && (p.Src != aLaptop || p.Dst != anAgent) {
			t.Fatalf("%s to %s passes", p.Src, p.Dst)
		}
		if p.Fragment || p.Proto == packet.ICMP6 {
			return
		}
		h := p.Payload()
		port := uint16(h[0])<<8 | uint16(h[1])
		if there {
			port = uint16(h[2])<<8 | uint16(h[3])
		}
		if port != control.LivePort && port != 20000 && port != 20001 {
			t.Errorf("port %d of the laptop's", port)
		}
	})
}
