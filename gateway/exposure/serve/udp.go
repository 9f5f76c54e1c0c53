package serve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flowTime is how long nothing may come of a flow, from either side.
	flowTime = 60 * time.Second
	// maxDatagram is larger than any.
	maxDatagram = 64 << 10
	// usualDatagram is what a port has room for until a larger one has come: 256
	// exposures may have 8 ports each, at two addresses.
	usualDatagram = 8 << 10
)

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// flow is a client of a port: datagrams from one address and back.
type flow struct {
	key    flowKey
	laptop Datagrams
	used   atomic.Int64 // UnixNano of the last datagram
}

type flowKey struct {
	port   *net.UDPConn
	client netip.AddrPort
}

func (f *flow) touch() { f.used.Store(time.Now().UnixNano()) }

func (f *flow) idle() time.Duration { return time.Since(time.Unix(0, f.used.Load())) }

// flows finds the flow of a datagram.
type flows struct {
	mu  sync.Mutex
	all map[flowKey]*flow
}

func (t *flows) init() { t.all = map[flowKey]*flow{} }

// receive gives each datagram to its flow until the port is closed. The first that
// is larger than usual is lost.
func (x *served) receive(port *net.UDPConn, to netip.AddrPort) {
	b := make([]byte, usualDatagram)
	for {
		n, client, err := port.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case n == len(b): // or what had room of it
			b = make([]byte, maxDatagram)
			continue
		case err != nil:
			continue // of a datagram that we sent
		}
		if f := x.flow(flowKey{port, client}, to); f != nil {
			_, _ = f.laptop.Write(b[:n]) // lost, as on any wire; answer hears why
		}
	}
}

// flow finds the flow of a datagram, or opens it; nil when it cannot be had. The
// flow that was silent longest makes room for another.
func (x *served) flow(k flowKey, to netip.AddrPort) *flow {
	x.flows.mu.Lock()
	defer x.flows.mu.Unlock()
	if f := x.flows.all[k]; f != nil {
		f.touch()
		return f
	}
	if len(x.flows.all) >= MaxFlows {
		x.flows.dropLocked(x.flows.silentLocked())
	}
	if !x.s.take() {
		return nil
	}
	laptop, err := x.s.dial.DialUDP(to)
	if err != nil {
		x.s.give()
		x.s.log.Debug("exposed port not reached", "exposure", x.Name, "addr", to, "flow", k.client, "err", err)
		return nil
	}
	f := &flow{key: k, laptop: laptop}
	f.touch()
	x.flows.all[k] = f
	x.work.Go(func() {
		stop := context.AfterFunc(x.ctx, func() { _ = laptop.Close() })
		defer stop()
		x.answer(f)
		x.flows.drop(f)
		x.s.give()
	})
	return f
}

func (t *flows) silentLocked() (silent *flow) {
	for _, f := range t.all {
		if silent == nil || f.used.Load() < silent.used.Load() {
			silent = f
		}
	}
	return silent
}

func (t *flows) drop(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(f)
}

func (t *flows) dropLocked(f *flow) {
	if t.all[f.key] == f {
		delete(t.all, f.key)
	}
	_ = f.laptop.Close()
}

// answer carries what the laptop sends to the client, until either is gone or
// nothing comes any more.
func (x *served) answer(f *flow) {
	for {
		_ = f.laptop.SetReadDeadline(time.Now().Add(max(0, flowTime-f.idle())))
		var d datagram
		_, err := f.laptop.ReadTo(&d)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && f.idle() < flowTime: // the client sent something
		case err != nil:
			d.free()
			return
		default:
			f.touch()
			_, _ = f.key.port.WriteToUDPAddrPort(d.bytes(), f.key.client)
		}
		d.free()
	}
}

// datagram takes room when there is something to put into it.
type datagram struct {
	room *[maxDatagram]byte
	n    int
}

func (d *datagram) Write(b []byte) (int, error) {
	if d.room == nil {
		d.room = datagrams.Get().(*[maxDatagram]byte)
	}
	n := copy(d.room[d.n:], b)
	d.n += n
	return n, nil
}

func (d *datagram) bytes() []byte {
	if d.room == nil {
		return nil
	}
	return d.room[:d.n]
}

func (d *datagram) free() {
	if d.room != nil {
		datagrams.Put(d.room)
		d.room = nil
	}
}
