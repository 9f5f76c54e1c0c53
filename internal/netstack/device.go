package netstack

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
	"podnet.dev/internal/resident"
)

const (
	// overhead is what WireGuard adds to a packet.
	overhead = 32
	// maxTrain bounds the outer bytes of one Read. WireGuard sends a Read as one
	// batch and the Bind coalesces it into one UDP send, which the kernel cuts
	// up in software, single datagram by single datagram, once it exceeds the
	// link's gso_max_size of 65,536 with all headers.
	maxTrain = 65493
	// readBatch is how many packets one Read gives at most: more than the 44 segments of a
	// train. WireGuard keeps as many buffers of 64 KiB for its reader, and for each
	// receiver of the Bind, for ever. With 64 for 128 (and the Bind's likewise) the
	// heap has 16 MiB less to keep, and the gateway's memory at the end of bin/bench is
	// 85 MB for 90, with 32, which would cut trains in two, 79; throughput, CPU and
	// round trips show no difference (6 rounds and more each, which differed by 2
	// among themselves).
	readBatch = 64
	// takeBytes is how much of the queue Read looks ahead for packets to merge.
	takeBytes = 2 * maxTrain
)

// device is the tun.Device of a Stack.
type device struct {
	s      *Stack
	mtu    int
	events chan tun.Event
	closed atomic.Bool

	// The reader's place in what it took from the queue. WireGuard reads from
	// one goroutine; the lock is for Close.
	mu     sync.Mutex
	spare  *resident.Spare
	taken  [64]outbound
	at, n  int
	run    int       // packets from at on that seg cuts up
	seg    segmenter // idle when left is 0
	slices [][]byte
	flat   []byte // a packet made contiguous before it is fragmented

	fragMu sync.Mutex
	frags  packet.Reassembler
}

var _ tun.Device = (*device)(nil)

func newDevice(s *Stack, mtu int) *device {
	d := &device{s: s, mtu: min(mtu, TunnelMTU), events: make(chan tun.Event, 1), spare: resident.NewSpare()}
	d.events <- tun.EventUp
	return d
}

func (d *device) File() *os.File           { return nil }
func (d *device) Name() (string, error)    { return "podnet", nil }
func (d *device) Events() <-chan tun.Event { return d.events }
func (d *device) BatchSize() int           { return readBatch }

// MTU is what WireGuard pads packets to: never beyond what the outer path
// carries, though TCP may be using larger segments on a stream.
func (d *device) MTU() (int, error) { return d.mtu, nil }

// Close drops what is queued and lets Read return os.ErrClosed.
func (d *device) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	d.s.link.out.close()
	d.s.link.acks.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release(d.n - d.at)
	d.seg.left = 0
	close(d.events)
	return nil
}

// release gives up the next k packets taken.
func (d *device) release(k int) {
	for ; k > 0; k-- {
		d.taken[d.at].release()
		d.at++
	}
}

// Read fills bufs with packets for WireGuard: whole packets, segments of
// large TCP packets (contiguous ones merged first), fragments of others. It
// stops at one train.
func (d *device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, room := 0, maxTrain
	fits := func(size, count int) bool {
		return n == 0 || size+count*overhead <= room && n+count <= len(bufs)
	}
	alloc := func(size int) []byte {
		if n == len(bufs) || offset+size > len(bufs[n]) {
			return make([]byte, size) // lost; fits and maxMTU make sure it is not
		}
		b := bufs[n][offset : offset+size]
		sizes[n] = size
		n++
		room -= size + overhead
		return b
	}
	for n < len(bufs) {
		if size := d.seg.next(); size > 0 {
			if !fits(size, 1) {
				break
			}
			d.seg.write(alloc(size))
			if d.seg.left == 0 {
				d.release(d.run)
			}
			continue
		}
		if d.at == d.n {
			if n == 0 {
				d.spare.Lend(bufs)
			}
			k, ok := d.s.link.out.take(d.taken[:], takeBytes, n == 0)
			d.spare.Take()
			if !ok && n == 0 {
				return 0, os.ErrClosed
			}
			if k == 0 {
				break
			}
			d.at, d.n = 0, k
		}
		o := &d.taken[d.at]
		if o.pkt != nil && o.pkt.GSOOptions.Type != stack.GSONone && o.pkt.Data().Size() > int(o.pkt.GSOOptions.MSS) {
			k, size, segs := d.mergeable()
			if !fits(size, segs) {
				break
			}
			d.load(k, size-segs*headerLen(o.pkt))
			continue
		}
		whole := o.size <= d.mtu || o.pkt != nil && o.pkt.TransportProtocolNumber == tcp.ProtocolNumber
		if pieces := packet.Fragments(o.size, d.mtu); !whole && !fits(o.size+pieces*60, pieces) || !fits(o.size, 1) {
			break
		}
		switch {
		case whole && o.raw != nil:
			copy(alloc(o.size), o.raw.B)
		case whole:
			writeWhole(alloc(o.size), o.pkt)
		case o.raw != nil:
			packet.Fragment(o.raw.B, d.mtu, alloc)
		default:
			d.flat = append(d.flat[:0], make([]byte, o.size)...)
			writeWhole(d.flat, o.pkt)
			packet.Fragment(d.flat, d.mtu, alloc)
		}
		d.release(1)
	}
	return n, nil
}

func headerLen(p *stack.PacketBuffer) int {
	return len(p.NetworkHeader().Slice()) + len(p.TransportHeader().Slice())
}

// mergeable counts how many of the packets taken continue the next one, what
// they come to in segments, and those segments' bytes with headers. It stops
// at a train.
func (d *device) mergeable() (k, size, segs int) {
	first := d.taken[d.at].pkt
	mss, hl := int(first.GSOOptions.MSS), headerLen(first)
	data := first.Data().Size()
	count := func(n int) int { return (n + mss - 1) / mss }
	k = 1
	for last := first; d.at+k < d.n; k++ {
		p := d.taken[d.at+k].pkt
		if p == nil || !continues(last, p) {
			break
		}
		n := data + p.Data().Size()
		if n+count(n)*(hl+overhead) > maxTrain {
			break
		}
		data, last = n, p
	}
	segs = count(data)
	return k, data + segs*hl, segs
}

// continues reports whether b is the TCP data right behind a.
func continues(a, b *stack.PacketBuffer) bool {
	if b.TransportProtocolNumber != tcp.ProtocolNumber || b.GSOOptions.Type == stack.GSONone ||
		a.GSOOptions.MSS != b.GSOOptions.MSS || b.Data().Size() == 0 {
		return false
	}
	an, bn := a.NetworkHeader().Slice(), b.NetworkHeader().Slice()
	at, bt := a.TransportHeader().Slice(), b.TransportHeader().Slice()
	if len(an) != len(bn) || len(at) != len(bt) || at[13]&^tcpPSH != tcpACK || bt[13]&^tcpPSH != tcpACK ||
		string(at[:4]) != string(bt[:4]) ||
		binary.BigEndian.Uint32(at[4:])+uint32(a.Data().Size()) != binary.BigEndian.Uint32(bt[4:]) {
		return false
	}
	if an[0]>>4 == 4 {
		return an[1] == bn[1] && string(an[12:20]) == string(bn[12:20])
	}
	return string(an[:4]) == string(bn[:4]) && string(an[8:40]) == string(bn[8:40])
}

// load gives the next k packets, which continue one another, to the
// segmenter. The last one's header speaks for all: its acknowledgement and
// window are the newest. PSH, which gVisor sets on everything, survives only
// where a train was not full, or it would end the receiver's own merging.
func (d *device) load(k, data int) {
	d.run = k
	d.slices = d.slices[:0]
	for i := range k {
		d.slices = appendData(d.slices, d.taken[d.at+i].pkt)
	}
	first, last := d.taken[d.at].pkt, d.taken[d.at+k-1].pkt
	var h [120]byte
	ip := copy(h[:], last.NetworkHeader().Slice())
	hl := ip + copy(h[ip:], last.TransportHeader().Slice())
	copy(h[ip+4:ip+8], first.TransportHeader().Slice()[4:8])
	copy(h[4:6], first.NetworkHeader().Slice()[4:6])
	mss := int(first.GSOOptions.MSS)
	d.seg.load(h[:hl], ip, mss, d.slices, data, data < maxTrain/2)
}

// appendData appends the slices that p's payload consists of.
func appendData(dst [][]byte, p *stack.PacketBuffer) [][]byte {
	views, skip := p.AsViewList()
	skip += headerLen(p)
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		dst = append(dst, b[skip:])
		skip = 0
	}
	return dst
}

// writeWhole copies p into out and computes the checksum that gVisor left to
// the device.
func writeWhole(out []byte, p *stack.PacketBuffer) {
	views, skip := p.AsViewList()
	at := 0
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		at += copy(out[at:], b[skip:])
		skip = 0
	}
	if g := p.GSOOptions; g.Type != stack.GSONone && g.NeedsCsum {
		start := len(p.NetworkHeader().Slice())
		field := out[start+int(g.CsumOffset):]
		sum := binary.BigEndian.Uint16(field) // of the pseudo header
		field[0], field[1] = 0, 0
		binary.BigEndian.PutUint16(field, ^packet.Sum(out[start:], sum))
	}
}

// batches holds the packets of one Write that are not for gVisor.
var batches = sync.Pool{New: func() any { return new([]packet.Packet) }}

// Write delivers what WireGuard received: packets of peers, that is outside
// bytes with a genuine source address.
func (d *device) Write(bufs [][]byte, offset int) (int, error) {
	if d.closed.Load() {
		return 0, os.ErrClosed
	}
	h, relay := d.s.hooks.Load(), d.s.relay.Load()
	batch := batches.Get().(*[]packet.Packet)
	for i := 0; i < len(bufs); {
		n, size, ip, hl := coalesce(bufs[i:], offset)
		run := bufs[i : i+n]
		i += n
		if relay != nil && d.passOn(run, offset, *relay) {
			continue
		}
		if hl > 0 {
			v := buffer.NewViewSize(size)
			merge(v.AsSlice(), run, offset, ip, hl)
			d.inject(v, ip == 40)
		} else if p, ok := packet.Parse(run[0][offset:]); ok {
			d.receive(&p, h, batch)
		}
	}
	if len(*batch) > 0 {
		h.Datagrams(*batch)
		clear(*batch)
		*batch = (*batch)[:0]
	}
	batches.Put(batch)
	return len(bufs), nil
}

// receive sorts a packet: to the stack, to the hooks, or nowhere.
func (d *device) receive(p *packet.Packet, h *Hooks, batch *[]packet.Packet) {
	if h == nil {
		d.deliver(p)
		return
	}
	local := d.s.IsLocal(p.Dst)
	if !local && !forwardable(p) {
		return
	}
	if p.Fragment {
		d.fragMu.Lock()
		b, ok := d.frags.Add(p, time.Now())
		d.fragMu.Unlock()
		if !ok {
			return
		}
		whole, ok := packet.Parse(b)
		if !ok || whole.Fragment {
			return
		}
		p = &whole
	}
	if p.Err() && !d.s.link.out.ofOne(p.Src, packet.Intended(p)) {
		return // the stack would believe what one peer says of another's flows
	}
	if local {
		d.deliver(p)
		return
	}
	switch {
	case p.SYN():
		if h.SYN(p) {
			d.s.reopen(p)
			d.deliver(p)
		}
	case p.Proto == packet.TCP:
		d.deliver(p)
	case p.Err():
		if packet.AboutTCP(p) {
			d.deliver(p)
		}
	default:
		*batch = append(*batch, *p)
	}
}

// forwardable drops what no router would forward.
func forwardable(p *packet.Packet) bool {
	return p.Src.IsValid() && !p.Src.IsUnspecified() && !p.Src.IsMulticast() && !p.Src.IsLoopback() &&
		!p.Dst.IsUnspecified() && !p.Dst.IsMulticast() && !p.Dst.IsLoopback() && p.Dst != broadcast
}

func (d *device) deliver(p *packet.Packet) {
	if p.Proto == packet.ICMP6 && !p.Fragment {
		packet.RelaxUnreachable(p)
	}
	v := buffer.NewViewSize(len(p.Data))
	copy(v.AsSlice(), p.Data)
	d.inject(v, p.Is6())
}

func (d *device) inject(v *buffer.View, six bool) {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	p.RXChecksumValidated = true
	d.s.link.deliver(p, six)
}
