package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Forward is a port of this machine that leads to one address.
type Forward struct {
	Network string         // "tcp" or "udp"
	Listen  netip.AddrPort // port 0: any
	To      string         // host:port, the host by name or address
}

// ParseForward reads [ADDRESS:]PORT=HOST:PORT[/udp]. Without an address it is this
// machine's loopback.
func ParseForward(text string) (f Forward, err error) {
	f.Network = "tcp"
	rest, udp := strings.CutSuffix(text, "/udp")
	if udp {
		f.Network = "udp"
	} else {
		rest = strings.TrimSuffix(rest, "/tcp")
	}
	listen, to, ok := strings.Cut(rest, "=")
	if !ok {
		return Forward{}, fmt.Errorf("%q is no forward: want [ADDRESS:]PORT=HOST:PORT[/udp], as 5432=db.shop:5432", text)
	}
	if port, err := strconv.ParseUint(listen, 10, 16); err == nil {
		f.Listen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	} else if f.Listen, err = netip.ParseAddrPort(listen); err != nil {
		return Forward{}, fmt.Errorf("%q is no port, nor an address with one, in %q", listen, text)
	}
	host, port, err := net.SplitHostPort(to)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		return Forward{}, fmt.Errorf("%q is no host with a port, in %q", to, text)
	}
	f.To = to
	return f, nil
}

func (f Forward) String() string { return fmt.Sprintf("%s=%s/%s", f.Listen, f.To, f.Network) }

// Open takes the port. The Forwarding serves it.
func (f Forward) Open(ctx context.Context) (*Forwarding, error) {
	var lc net.ListenConfig
	o := &Forwarding{Forward: f}
	var err error
	if f.Network == "udp" {
		if o.packets, err = lc.ListenPacket(ctx, "udp", f.Listen.String()); err == nil {
			o.Listen = o.packets.LocalAddr().(*net.UDPAddr).AddrPort()
		}
	} else if o.streams, err = lc.Listen(ctx, "tcp", f.Listen.String()); err == nil {
		o.Listen = o.streams.Addr().(*net.TCPAddr).AddrPort()
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// Forwarding is a Forward that has its port: Listen says which.
type Forwarding struct {
	Forward
	streams net.Listener
	packets net.PacketConn
}

// Close gives the port back, of a Forwarding that is not served.
func (f *Forwarding) Close() error {
	if f.packets != nil {
		return f.packets.Close()
	}
	return f.streams.Close()
}

// Serve carries what comes until ctx is done, and gives the port back. It returns nil,
// or why the port failed.
func (f *Forwarding) Serve(ctx context.Context, d Dial, log *slog.Logger) error {
	if f.packets != nil {
		return (&datagrams{f: f, dial: d, log: log, flows: map[string]chan []byte{}}).serve(ctx)
	}
	return accept(ctx, f.streams, log, func(near net.Conn) {
		far, err := dial(ctx, d, "tcp", f.To)
		if err != nil {
			log.Info("not forwarded", "to", f.To, "err", err)
			_ = near.(*net.TCPConn).SetLinger(0) // the program is to see that nobody is there
			_ = near.Close()
			return
		}
		carry(ctx, near, far)
	})
}

const (
	// datagramIdle is how long a flow without datagrams is kept (RFC 4787, REQ-5).
	datagramIdle = 5 * time.Minute
	// datagramFlows is how many there may be, and datagramsWaiting how many datagrams of
	// one while its name is looked up, or its far end takes them slowly.
	datagramFlows    = 1024
	datagramsWaiting = 32
	maxDatagram      = 64 << 10
)

// datagrams are the flows of one port, by who sends.
type datagrams struct {
	f    *Forwarding
	dial Dial
	log  *slog.Logger

	mu    sync.Mutex
	wg    sync.WaitGroup
	flows map[string]chan []byte // what is to be sent
}

func (d *datagrams) serve(ctx context.Context) error {
	defer d.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = d.f.packets.Close() })()
	b := make([]byte, maxDatagram)
	for {
		n, from, err := d.f.packets.ReadFrom(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		select {
		case d.flow(ctx, from) <- slices.Clone(b[:n]):
		default: // lost, as any datagram may be
		}
	}
}

// flow is the sender's, new or not; nil, to which nothing can be sent: there is none to
// be had.
func (d *datagrams) flow(ctx context.Context, from net.Addr) chan<- []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.flows[from.String()]
	if out == nil && len(d.flows) < datagramFlows {
		out = make(chan []byte, datagramsWaiting)
		d.flows[from.String()] = out
		d.wg.Go(func() {
			d.carry(ctx, from, out)
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.flows, from.String())
		})
	}
	return out
}

// carry connects a flow and carries its datagrams, until the far end has been silent
// for long.
func (d *datagrams) carry(ctx context.Context, from net.Addr, out <-chan []byte) {
	far, err := dial(ctx, d.dial, "udp", d.f.To)
	if err != nil {
		d.log.Info("not forwarded", "to", d.f.To, "err", err)
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { _ = far.Close() })()
	over := make(chan struct{})
	d.wg.Go(func() {
		defer close(over)
		d.answer(far, from)
	})
	for {
		_ = far.SetReadDeadline(time.Now().Add(datagramIdle))
		select {
		case b := <-out:
			_, _ = far.Write(b)
		case <-over:
			return
		}
	}
}

// answer takes back what the far end says, until it has been silent for long.
func (d *datagrams) answer(far net.Conn, to net.Addr) {
	b := make([]byte, maxDatagram)
	for {
		n, err := far.Read(b)
		if err != nil {
			if errors.Is(err, syscall.ECONNREFUSED) {
				continue // somebody may listen there later
			}
			return
		}
		_ = far.SetReadDeadline(time.Now().Add(datagramIdle))
		_, _ = d.f.packets.WriteTo(b[:n], to)
	}
}
