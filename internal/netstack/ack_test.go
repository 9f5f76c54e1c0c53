package netstack

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"podnet.dev/internal/packet"
)

// segment is a TCP packet of a flow, which has that source port.
type segment struct {
	flow    uint16
	ack     uint32
	flags   header.TCPFlags // besides ACK
	data    int
	window  uint16
	options []byte
}

// stamp is a time stamp as every segment has it, sack what says that some are
// missing.
var (
	stamp = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	sack  = append(slices.Clone(stamp), 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2)
)

func (s segment) packet() *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize + header.TCPMinimumSize + len(s.options),
		Payload:            buffer.MakeWithData(make([]byte, s.data)),
	})
	h := header.TCP(p.TransportHeader().Push(header.TCPMinimumSize + len(s.options)))
	h.Encode(&header.TCPFields{
		SrcPort: s.flow, DstPort: 80, AckNum: s.ack, Flags: header.TCPFlagAck | s.flags, WindowSize: s.window,
		DataOffset: uint8(header.TCPMinimumSize + len(s.options)),
	})
	copy(h[header.TCPMinimumSize:], s.options)
	ip := p.NetworkHeader().Push(header.IPv6MinimumSize)
	ip[0], ip[6] = 6<<4, packet.TCP
	binary.BigEndian.PutUint16(ip[4:], uint16(len(h)+s.data))
	p.TransportProtocolNumber = tcp.ProtocolNumber
	return p
}

// counter is acks whose packets are counted by their acknowledgements.
type counter struct {
	acks
	sent []uint32
}

func newCounter() *counter {
	c := &counter{}
	c.init(func(p *stack.PacketBuffer) {
		c.sent = append(c.sent, header.TCP(p.TransportHeader().Slice()).AckNumber())
		p.DecRef()
	})
	return c
}

func (c *counter) write(s segment) {
	p := s.packet()
	defer p.DecRef()
	if !c.hold(p) {
		c.send(p.IncRef())
	}
}

// TestAcknowledgementsWait: what is sent at once, and what after ackDelay.
func TestAcknowledgementsWait(t *testing.T) {
	const began = 5000
	for name, test := range map[string]struct {
		after       []segment // a first segment, which is sent
		atOnce, all []uint32
	}{
		"alone it waits":                 {[]segment{{ack: began + 1}}, nil, []uint32{began + 1}},
		"data takes it along":            {[]segment{{ack: began + 1}, {ack: began + 1, data: 10}}, []uint32{began + 1}, []uint32{began + 1}},
		"so does the end":                {[]segment{{ack: began + 1}, {ack: began + 1, flags: header.TCPFlagFin}}, []uint32{began + 1}, []uint32{began + 1}},
		"the second goes for both":       {[]segment{{ack: began + 1}, {ack: began + 2}}, []uint32{began + 2}, []uint32{began + 2}},
		"and the third waits again":      {[]segment{{ack: began + 1}, {ack: began + 2}, {ack: began + 3}}, []uint32{began + 2}, []uint32{began + 2, began + 3}},
		"of much it does not wait":       {[]segment{{ack: began + ackBytes + 1}}, []uint32{began + ackBytes + 1}, []uint32{began + ackBytes + 1}},
		"a duplicate does not wait":      {[]segment{{ack: began}}, []uint32{began}, []uint32{began}},
		"it is one only after the first": {[]segment{{ack: began + 1}, {ack: began + 1}}, []uint32{began + 1, began + 1}, []uint32{began + 1, began + 1}},
		"nor does a wider window":        {[]segment{{ack: began, window: 100}}, []uint32{began}, []uint32{began}},
		"nor what tells of a gap":        {[]segment{{ack: began + 1, options: sack}}, []uint32{began + 1}, []uint32{began + 1}},
		"nor a reset":                    {[]segment{{ack: began + 1, flags: header.TCPFlagRst}}, []uint32{began + 1}, []uint32{began + 1}},
		"nor a connection's first":       {[]segment{{flow: 9, ack: began + 1}}, []uint32{began + 1}, []uint32{began + 1}},
		"numbers come around":            {[]segment{{ack: 1<<32 - 5}, {ack: 3}}, []uint32{1<<32 - 5}, []uint32{1<<32 - 5, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCounter()
				c.write(segment{flow: 7, ack: began, options: stamp})
				c.sent = nil
				for _, s := range test.after {
					if s.flow == 0 {
						s.flow = 7
					}
					if s.options == nil {
						s.options = stamp
					}
					c.write(s)
				}
				if !slices.Equal(c.sent, test.atOnce) {
					t.Errorf("at once were sent %v, want %v", c.sent, test.atOnce)
				}
				time.Sleep(ackDelay)
				synctest.Wait()
				if !slices.Equal(c.sent, test.all) {
					t.Errorf("in the end were sent %v, want %v", c.sent, test.all)
				}
			})
		})
	}
}

// TestManyFlowsWait has so many flows that some share a lane: each one's last
// acknowledgement is sent, in time.
func TestManyFlowsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flows = 3 * ackLanes
		c := newCounter()
		for ack := range uint32(3) {
			for flow := range uint16(flows) {
				c.write(segment{flow: flow, ack: 10_000*uint32(flow+1) + ack, options: stamp})
			}
			time.Sleep(ackDelay / 2)
		}
		time.Sleep(ackDelay)
		synctest.Wait()
		last := map[uint32]uint32{}
		for _, ack := range c.sent {
			last[ack/10_000] = max(last[ack/10_000], ack%10_000)
		}
		if len(last) != flows {
			t.Errorf("%d flows of %d were acknowledged", len(last), flows)
		}
		for flow, ack := range last {
			if ack != 2 {
				t.Fatalf("flow %d was acknowledged up to %d", flow, ack)
			}
		}
	})
}

// TestNothingIsHeldAtTheEnd: what waits is sent when the stack is about to end,
// and nothing waits afterwards.
func TestNothingIsHeldAtTheEnd(t *testing.T) {
	c := newCounter()
	for ack := range uint32(2) {
		c.write(segment{flow: 7, ack: 5000 + ack, options: stamp})
	}
	c.flush()
	if want := []uint32{5000, 5001}; !slices.Equal(c.sent, want) {
		t.Errorf("sent were %v, want %v", c.sent, want)
	}
	c.close()
	c.write(segment{flow: 7, ack: 5002, options: stamp})
	if n := len(c.sent); n != 3 {
		t.Errorf("%d were sent, want 3", n)
	}
}

// TestAnswersTakeAcknowledgementsAlong counts the packets of small questions and
// their answers: one each.
func TestAnswersTakeAcknowledgementsAlong(t *testing.T) {
	a, b := pair(t, DefaultMTU, DefaultMTU)
	var packets atomic.Int64
	for _, s := range []*Stack{a, b} {
		s.Relay(func(*packet.Packet) bool { packets.Add(1); return false })
	}
	l, err := b.ListenTCP(netip.AddrPortFrom(b6, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := a.DialTCP(context.Background(), netip.AddrPortFrom(b6, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	question := make([]byte, 100)
	ask := func() {
		if _, err := c.Write(question); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, question); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	// On a busy machine an answer may take longer than an acknowledgement waits.
	const times, rounds = 50, 20
	best := int64(times * 4) // as it is when none waits
	for range rounds {
		before := packets.Load()
		for range times {
			ask()
		}
		best = min(best, packets.Load()-before)
	}
	if best > times*3 {
		t.Errorf("%d packets for %d questions and their answers", best, times)
	}
	t.Logf("%.2f packets for a question and its answer", float64(best)/times)
}
