package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// acceptedBuffer bounds what the kernel takes in for a stream before the device
// asks for it. Accepted streams come over the pod's loopback, where the 6 MiB
// that TCP would grow to are nothing but queue.
const acceptedBuffer = 512 << 10

// hushedFor is how long nothing may come by an accepted stream. A laptop pings each path
// that it has (wayFor); one that has gone elsewhere without a word leaves a stream behind
// that API server, kubelet and container runtime keep up between them for five minutes
// and more, of which there is only so much room here.
const hushedFor = 2 * time.Minute

// hushed is a stream that ends when nothing has come by it for that long.
type hushed struct{ net.Conn }

func (c hushed) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(hushedFor)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// ServeStreams accepts streams from ln until ctx ends, and then closes ln and
// every stream and returns nil. At most Options.MaxStreams are open at once,
// those that have not sent their preamble included; more are closed unread.
func (b *Bind) ServeStreams(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel() // before the wait
	places := make(chan struct{}, b.opt.MaxStreams)
	for pause := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept streams: %w", err)
		case err != nil:
			// Out of files, or a connection that died in the queue.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			b.opt.Log.Debug("accept stream failed", "err", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		select {
		case places <- struct{}{}:
		default:
			b.opt.Log.Debug("stream refused, too many", "addr", c.RemoteAddr(), "limit", b.opt.MaxStreams)
			c.Close()
			continue
		}
		wait.Go(func() {
			defer func() { <-places }()
			defer c.Close()
			err := b.serveStream(ctx, c)
			b.opt.Log.Debug("stream closed", "addr", c.RemoteAddr(), "err", err)
		})
	}
}

// serveStream carries one accepted stream. Its datagrams come from an address
// that no other stream has or had.
func (b *Bind) serveStream(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := greet(conn, true); err != nil {
		return err
	}
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetReadBuffer(acceptedBuffer)
	}
	var rx, tx atomic.Uint64
	c := newCarrier(b, conn, &rx, &tx)
	c.c = hushed{conn}
	c.ep = &streamEndpoint{address: address{synthetic(streamPrefix, b.streamID.Add(1))}, c: c}
	b.heedStream(c)
	defer b.answers.forget(c)
	stopCarrier := context.AfterFunc(ctx, func() { c.close(context.Cause(ctx)) })
	defer stopCarrier()
	return c.run()
}
