package transport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// backoffMin doubles up to backoffMax between attempts to dial, each time
	// give or take a quarter, so that the laptops of an office do not all come
	// back to a restarted API server in the same instant.
	backoffMin = 100 * time.Millisecond
	backoffMax = 3 * time.Second
	// goodStream is how long a stream must have lasted for its end to be
	// answered as if it were the first.
	goodStream = 10 * time.Second
	// heldMax is how many datagrams wait for a stream that is being dialled,
	// and heldFor how long. What TCP sends first is what it wants answered
	// first, so the first are kept.
	heldMax = 64
	heldFor = 2 * time.Second
)

// streamPath keeps a stream dialled.
//
//	dialling --ok--> up --stream ends--> dialling (after a pause)
//	    \______________________________________/
//	                    close
type streamPath struct {
	g      *Gateway
	dial   func(context.Context) (net.Conn, error)
	cancel context.CancelFunc
	wait   sync.WaitGroup
	rx, tx atomic.Uint64

	mu        sync.Mutex
	c         *carrier // nil: dialling
	held      [][]byte
	heldSince time.Time
	since     time.Time
	remote    string
	dials     int // that led to a stream
	lastErr   error
}

func newStreamPath(g *Gateway, dial func(context.Context) (net.Conn, error)) *streamPath {
	ctx, cancel := context.WithCancel(context.Background())
	p := &streamPath{g: g, dial: dial, cancel: cancel}
	p.wait.Go(func() { p.run(ctx) })
	return p
}

func (p *streamPath) close() {
	p.cancel()
	p.wait.Wait()
}

func (p *streamPath) run(ctx context.Context) {
	for failures := 0; ; {
		c, err := p.connect(ctx)
		if err == nil {
			began := time.Now()
			err = p.carry(ctx, c)
			if time.Since(began) >= goodStream {
				failures = 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.lastErr = err
		p.mu.Unlock()
		p.g.log.Debug("stream ended", "path", APIServer, "err", err)
		select {
		case <-time.After(backoff(failures, rand.Float64())):
		case <-ctx.Done():
			return
		}
		failures++
	}
}

// backoff is the pause after so many failures in a row. chance is in [0, 1).
func backoff(failures int, chance float64) time.Duration {
	d := min(backoffMin<<min(failures, 10), backoffMax)
	return time.Duration(float64(d) * (0.75 + chance/2))
}

// connect dials and exchanges preambles.
func (p *streamPath) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := p.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial stream: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err = greet(c, false)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return c, nil
}

// carry is the up state: it makes c the path's stream until that ends.
func (p *streamPath) carry(ctx context.Context, conn net.Conn) error {
	c := newCarrier(p.g.b, conn, &p.rx, &p.tx)
	c.ep = p.g
	stop := context.AfterFunc(ctx, func() { c.close(context.Cause(ctx)) })
	defer stop()
	p.mu.Lock()
	p.c, p.since = c, time.Now()
	p.dials++
	if a := conn.RemoteAddr(); a != nil {
		p.remote = a.String()
	}
	held := p.held
	if time.Since(p.heldSince) > heldFor {
		held = nil
	}
	p.held = nil
	p.mu.Unlock()
	if len(held) > 0 {
		c.send(held, nil)
	}
	// The tunnel may be slow to take the hint; the stream must run meanwhile.
	p.wait.Go(func() { p.g.pathUp(p) })
	err := c.run()
	p.mu.Lock()
	p.c = nil
	p.mu.Unlock()
	return fmt.Errorf("stream: %w", err)
}

func (p *streamPath) send(bufs [][]byte, cancel <-chan struct{}) error {
	p.mu.Lock()
	c := p.c
	if c == nil {
		p.holdLocked(bufs)
	}
	p.mu.Unlock()
	if c != nil {
		c.send(bufs, cancel)
	}
	return nil
}

// holdLocked keeps bufs for the stream to come. Initiations are left out: the
// Gateway repeats the last one.
func (p *streamPath) holdLocked(bufs [][]byte) {
	if len(p.held) == 0 || time.Since(p.heldSince) > heldFor {
		p.held, p.heldSince = nil, time.Now()
	}
	for _, m := range bufs {
		if len(p.held) < heldMax && len(m) > 0 && m[0] != msgInitiation {
			p.held = append(p.held, append([]byte(nil), m...))
		}
	}
}

func (p *streamPath) status() PathStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PathStatus{
		Kind: APIServer, Remote: p.remote, Live: p.c != nil, Since: p.since,
		RxBytes: p.rx.Load(), TxBytes: p.tx.Load(),
		Redials: max(0, p.dials-1), LastError: p.lastErr,
	}
}
