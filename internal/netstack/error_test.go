package netstack

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"podnet.dev/internal/packet"
)

// rawPeer opens one connection through a forwarding stack by packets of its own.
type rawPeer struct {
	t      *testing.T
	s      *Stack
	me, to netip.AddrPort
}

func (r *rawPeer) write(b []byte) {
	r.t.Helper()
	if _, err := r.s.Device().Write([][]byte{b}, 0); err != nil {
		r.t.Fatal(err)
	}
}

// segment sends one without data; options are whole words.
func (r *rawPeer) segment(seq, ack uint32, flags byte, options ...byte) {
	r.t.Helper()
	hl := packet.HeaderIP(r.me.Addr())
	b := make([]byte, hl+20+len(options))
	packet.PutIP(b, packet.TCP, r.me.Addr(), r.to.Addr())
	tcp := b[hl:]
	binary.BigEndian.PutUint16(tcp, r.me.Port())
	binary.BigEndian.PutUint16(tcp[2:], r.to.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13], tcp[14] = byte(20+len(options))/4<<4, flags, 0xff
	copy(tcp[20:], options)
	r.write(b)
}

// read returns the TCP header, with what follows it, of each packet that the stack sends at once.
func (r *rawPeer) read() (all [][]byte) {
	r.t.Helper()
	timer := time.AfterFunc(5*time.Second, func() { _ = r.s.Device().Close() })
	defer timer.Stop()
	bufs, sizes := make([][]byte, r.s.Device().BatchSize()), make([]int, r.s.Device().BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	n, err := r.s.Device().Read(bufs, sizes, 0)
	if err != nil {
		r.t.Fatal("the stack sends nothing")
	}
	for i := range n {
		if p, ok := packet.Parse(bufs[i][:sizes[i]]); ok && p.Proto == packet.TCP && p.Dst == r.me.Addr() {
			all = append(all, p.Payload())
		}
	}
	return all
}

// tooBig is an ICMP error that tells of a smaller MTU on the way from a target to a peer.
func tooBig(from, to netip.Addr, src, dst netip.AddrPort) []byte {
	hl := packet.HeaderIP(from)
	about := make([]byte, hl+20)
	packet.PutIP(about, packet.TCP, src.Addr(), dst.Addr())
	binary.BigEndian.PutUint16(about[hl:], src.Port())
	binary.BigEndian.PutUint16(about[hl+2:], dst.Port())
	b := make([]byte, hl+8+len(about))
	copy(b[hl+8:], about)
	if from.Is4() {
		b[hl], b[hl+1] = 3, 4
		binary.BigEndian.PutUint16(b[hl+6:], 576)
		packet.PutIP(b, packet.ICMP, from, to)
		binary.BigEndian.PutUint16(b[hl+2:], ^packet.Sum(b[hl:], 0))
		return b
	}
	b[hl] = 2
	binary.BigEndian.PutUint32(b[hl+4:], 1280)
	packet.PutIP(b, packet.ICMP6, from, to)
	binary.BigEndian.PutUint16(b[hl+2:], ^packet.Sum(b[hl:], packet.PseudoSum(packet.ICMP6, from.AsSlice(), to.AsSlice(), len(b)-hl)))
	return b
}

// pieces are a packet's fragments, the first of which ends behind the ICMP header.
func pieces(b []byte) (all [][]byte) {
	p, _ := packet.Parse(b)
	head := packet.HeaderIP(p.Src)
	for _, cut := range [][2]int{{head, head + 8}, {head + 8, len(b)}} {
		at, more := cut[0]-head, cut[1] < len(b)
		if !p.Is6() {
			f := append(append([]byte(nil), b[:head]...), b[cut[0]:cut[1]]...)
			packet.PutIP(f, packet.ICMP, p.Src, p.Dst)
			field := uint16(at / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(f[4:], 7)
			binary.BigEndian.PutUint16(f[6:], field)
			f[10], f[11] = 0, 0
			binary.BigEndian.PutUint16(f[10:], ^packet.Sum(f[:head], 0))
			all = append(all, f)
			continue
		}
		f := append(append(append([]byte(nil), b[:head]...), packet.ICMP6, 0, 0, byte(at), 0, 0, 0, 7), b[cut[0]:cut[1]]...)
		packet.PutIP(f, 44, p.Src, p.Dst)
		if more {
			f[head+3] |= 1
		}
		all = append(all, f)
	}
	return all
}

// What a peer says of its own connections is believed, and what it says of another
// peer's is not, wherever it says so: it could slow them down, or break them off.
func TestErrorsAboutOthersFlows(t *testing.T) {
	own4, own6 := netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd70:6f64:6e65:7400::9")
	for _, c := range []struct {
		name              string
		peer, target, own netip.Addr
		behind, other     netip.Addr // a router of the peer's own network, another peer
		small             int
	}{
		{"4", a4, netip.MustParseAddr("10.244.0.17"), own4, netip.MustParseAddr("192.168.5.1"), b4, 536},
		{"6", a6, netip.MustParseAddr("fd00:10:244::17"), own6, netip.MustParseAddr("fd12:5::1"), b6, 1220},
	} {
		for _, e := range []struct {
			what     string
			from, to netip.Addr
			cut      bool
			want     int
		}{
			{"its own, to the target", c.peer, c.target, false, c.small},
			{"its own, to the stack", c.peer, c.own, false, c.small},
			{"its own, in pieces", c.peer, c.own, true, c.small},
			{"its router's", c.behind, c.target, false, c.small},
			{"another's, to the target", c.other, c.target, false, 1380},
			{"another's, to the target in pieces", c.other, c.target, true, 1380},
			{"another's, to the stack", c.other, c.own, false, 1380},
			{"another's, to the stack in pieces", c.other, c.own, true, 1380},
		} {
			t.Run(c.name+" "+e.what, func(t *testing.T) {
				s, err := New(Config{MTU: 16384})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.AddAddress(c.own); err != nil {
					t.Fatal(err)
				}
				s.device.Sort(func(a netip.Addr) uint64 {
					return map[netip.Addr]uint64{c.peer: 1, c.behind: 1, c.other: 2}[a]
				}, func(uint64) (room, slow bool) { return true, false })
				conns := make(chan *TCPConn, 1)
				s.Forward(&Hooks{
					SYN: func(*packet.Packet) bool { return true },
					TCP: func(r *TCPRequest) {
						if conn, err := r.Accept(context.Background()); err == nil {
							conns <- conn
						}
					},
					Datagrams: func([]packet.Packet) {},
				})
				r := &rawPeer{t, s, netip.AddrPortFrom(c.peer, 40000), netip.AddrPortFrom(c.target, 80)}
				r.segment(1000, 0, 2, 2, 4, 1380>>8, 1380&0xff)
				isn := binary.BigEndian.Uint32(r.read()[0][4:])
				r.segment(1001, isn+1, tcpACK)
				conn := <-conns
				defer conn.Reset()

				told := [][]byte{tooBig(e.from, e.to, r.to, r.me)}
				if e.cut {
					told = pieces(told[0])
				}
				for _, b := range told {
					r.write(b)
				}
				if _, err := conn.Write(make([]byte, 4000)); err != nil {
					t.Fatal(err)
				}
				most := 0
				for _, tcp := range r.read() {
					most = max(most, len(tcp)-int(tcp[12]>>4)*4)
				}
				if most != e.want {
					t.Errorf("segments of %d bytes, want %d", most, e.want)
				}
			})
		}
	}
}
