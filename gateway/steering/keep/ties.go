package keep

import (
	"encoding/binary"
	"slices"

	"podnet.dev/gateway/steering"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer"
)

// ties are what may pass from peer to peer: from an agent to ports of a laptop's
// relay address, and from those ports back. Nothing else does.
type ties map[pair][]tie

// pair is a source and a destination, as they stand in an IPv6 header.
type pair [32]byte

type tie struct {
	protocol uint8
	port     uint16 // of the laptop
	back     bool   // the laptop is the source
}

// newTies makes the table of a plan, nil when there is none. Agents that are not
// in the tunnel have no ties.
func newTies(all []steering.Tie) ties {
	var t ties
	for _, one := range all {
		if !one.Agent.Is6() || !one.Laptop.Is6() {
			continue
		}
		if t == nil {
			t = ties{}
		}
		protocol := uint8(packet.TCP)
		if one.Proto == steer.UDP {
			protocol = packet.UDP
		}
		a, l := one.Agent.As16(), one.Laptop.As16()
		there, back := pair(slices.Concat(a[:], l[:])), pair(slices.Concat(l[:], a[:]))
		t[there] = append(t[there], tie{protocol, one.Port, false})
		t[back] = append(t[back], tie{protocol, one.Port, true})
	}
	return t
}

// claims reports whether a packet may pass. WireGuard has made sure that it is
// from who it says.
func (t ties) claims(p *packet.Packet) bool {
	if !p.Is6() {
		return false
	}
	all := t[pair(p.Data[8:40])]
	if all == nil {
		return false
	}
	if p.Fragment {
		// What has no ports goes with the first fragment of its datagram, and is
		// of no use without it. TCP is never in fragments.
		return p.Proto == packet.UDP && (p.Offset > 0 && slices.ContainsFunc(all, func(t tie) bool { return t.protocol == packet.UDP }) ||
			p.Offset == 0 && allows(all, packet.UDP, p.Payload(), false))
	}
	if p.Proto == packet.ICMP6 && p.Err() {
		return answers(p, all)
	}
	return allows(all, p.Proto, p.Payload(), false)
}

// allows looks for the ports at the beginning of a transport header. With swap
// they are those of a packet in the other direction.
func allows(all []tie, protocol uint8, header []byte, swap bool) bool {
	if len(header) < 8 {
		return false
	}
	src, dst := binary.BigEndian.Uint16(header), binary.BigEndian.Uint16(header[2:])
	if swap {
		src, dst = dst, src
	}
	return slices.ContainsFunc(all, func(t tie) bool {
		return t.protocol == protocol && (t.back && t.port == src || !t.back && t.port == dst)
	})
}

// answers reports whether an ICMP error is about a packet that may have passed
// the other way.
func answers(p *packet.Packet, all []tie) bool {
	const header, fixed = 8, 40
	b := p.Payload()
	if len(b) < header+fixed+8 {
		return false
	}
	about := b[header:]
	src, dst := p.Src.As16(), p.Dst.As16()
	return about[0]>>4 == 6 && [16]byte(about[8:24]) == dst && [16]byte(about[24:40]) == src &&
		allows(all, about[6], about[fixed:], true)
}
