package sandbox

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/tunfd"
)

// outside is what is at the other end of host0: a stack that takes every address, and a
// forwarder that carries its flows out by this process's own sockets.
type outside struct {
	host    tun.Device
	stack   *netstack.Stack
	forward *forward.Forwarder
}

// anything lets programs inside reach all that this process reaches.
type anything struct{}

func (anything) Allow(netip.Addr, forward.Proto, netip.AddrPort) bool { return true }

// namesOnly lets them ask for names.
type namesOnly struct{}

func (namesOnly) Allow(_ netip.Addr, _ forward.Proto, to netip.AddrPort) bool {
	return to.Addr() == DNS
}

func openOutside(fd int, rewrite func(forward.Proto, netip.AddrPort) netip.AddrPort, o Options) (*outside, error) {
	host, err := tunfd.Open(fd, outsideMTU)
	if err != nil {
		return nil, err
	}
	stack, err := netstack.New(netstack.Config{MTU: outsideMTU, Log: o.Log})
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	var policy forward.Policy = anything{}
	if o.Isolate {
		policy = namesOnly{}
	}
	return &outside{host, stack, forward.New(stack, policy, forward.Options{Log: o.Log, Rewrite: rewrite})}, nil
}

// run carries packets and flows until ctx is done.
func (o *outside) run(ctx context.Context) {
	var pumps sync.WaitGroup
	pumps.Go(func() { pump(o.stack.Device(), o.host, outsideMTU) })
	// Behind a full-sized buffer the host's device finds room for the segments that it
	// puts together.
	pumps.Go(func() { pump(o.host, o.stack.Device(), maxPacket) })
	_ = o.forward.Run(ctx)
	_ = o.stack.Close()
	_ = o.host.Close()
	pumps.Wait()
}

const (
	maxPacket = 1<<16 - 1
	// headroom is what devices want before a packet (wireguard-go's tun_linux.go).
	headroom = 16
)

// maxFailures is how many reads in a row may fail, one for each packet that a device
// finds nonsense, before it counts as broken.
const maxFailures = 100

// pump carries packets from one device to another until either is closed.
func pump(to, from tun.Device, size int) {
	n, failures := from.BatchSize(), 0
	room, bufs, sizes := make([][]byte, n), make([][]byte, n), make([]int, n)
	for i := range room {
		room[i] = make([]byte, headroom+size)
	}
	for {
		n, err := from.Read(room, sizes, headroom)
		switch failures++; {
		case errors.Is(err, os.ErrClosed) || failures > maxFailures:
			return
		case err == nil:
			failures = 0
		}
		for i := range n {
			bufs[i] = room[i][:headroom+sizes[i]]
		}
		if n > 0 {
			if _, err := to.Write(bufs[:n], headroom); errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}
}
