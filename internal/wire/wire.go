package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxPacket is the longest packet a device gives in one read, in bytes.
const maxPacket = 65535

// inFlight is how many packets are on the way at most, in one direction:
// about 1 s of a gigabit.
const inFlight = 1 << 16

// Wire joins two devices. A device gives and takes one packet per call.
type Wire struct {
	a, b io.ReadWriteCloser

	mu      sync.Mutex
	shapers [2]*Shaper // a to b, b to a
}

// New makes a wire between two devices, which it owns from now on.
func New(a, b io.ReadWriteCloser, c Config) *Wire {
	return &Wire{a: a, b: b, shapers: [2]*Shaper{NewShaper(c, 1), NewShaper(c, 2)}}
}

// Set changes both directions. Packets on the way arrive as they would have.
func (w *Wire) Set(c Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.shapers {
		s.Set(c)
	}
}

func (w *Wire) admit(direction, size int) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shapers[direction].Admit(time.Now(), size)
}

type packet struct {
	arrives time.Time
	data    []byte
}

// Run carries packets until ctx ends or a device fails, and closes both.
func (w *Wire) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, func() { _, _ = w.a.Close(), w.b.Close() })
	defer stop()
	for direction, ends := range [2][2]io.ReadWriter{{w.a, w.b}, {w.b, w.a}} {
		way := make(chan packet, inFlight)
		g.Go(func() error {
			defer close(way)
			return w.take(direction, ends[0], way)
		})
		g.Go(func() error { return deliver(gctx, way, ends[1]) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take reads packets and sends those that will arrive on their way.
func (w *Wire) take(direction int, from io.Reader, way chan<- packet) error {
	buf := make([]byte, maxPacket)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		arrives, ok := w.admit(direction, n)
		if !ok {
			continue
		}
		p := packet{arrives, append([]byte(nil), buf[:n]...)}
		select {
		case way <- p:
		default: // more in flight than the wire holds: lost
		}
	}
}

// deliver hands packets over when their time has come, in order.
func deliver(ctx context.Context, way <-chan packet, to io.Writer) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range way {
		// Sleeping is no more precise than this, and costs more than it.
		if early := time.Until(p.arrives); early > 20*time.Microsecond {
			timer.Reset(early)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// A device that is down takes nothing: lost, as on any wire.
		if _, err := to.Write(p.data); errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
			return err
		}
	}
	return nil
}
