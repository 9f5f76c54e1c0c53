package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"podnet.dev/internal/paths"
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
	// doubtFor is how long a stream that is doubted may take to say something
	// before a second one is dialled beside it. It is pinged meanwhile.
	doubtFor = 500 * time.Millisecond
)

// streamPath keeps a stream dialled.
//
//	     .------------- failed, after a pause ------------.
//	     v                                                |
//	 dialling --ok--> up --stream ends, or is dead--> (pause)
//	     ^            |  ^
//	     |   doubted, |  | ok: the new stream takes the
//	     |   silent   v  | place of the old
//	(failed, and    dialling beside the old one
//	 the old ended)
type streamPath struct {
	g      *Gateway
	id     paths.ID
	dial   func(context.Context) (net.Conn, error)
	doubt  chan struct{} // capacity 1: the stream, or the back-off, is doubted
	again  chan struct{} // capacity 1: dial now
	rx, tx atomic.Uint64

	mu      sync.Mutex
	c       *carrier // nil: none
	remote  string
	dials   int // that led to a stream
	fails   int // ends of streams, and dials that led to none
	lastErr error
}

func newStreamPath(g *Gateway, id paths.ID, dial func(context.Context) (net.Conn, error)) *streamPath {
	return &streamPath{g: g, id: id, dial: dial, doubt: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// errReplaced ends a stream in whose place there is a new one.
var errReplaced = errors.New("a new stream was dialled")

func (p *streamPath) run(ctx context.Context) {
	var carrying sync.WaitGroup
	defer carrying.Wait()
	var c *carrier // nil: none
	for failures := 0; ctx.Err() == nil; {
		conn, err := p.connect(ctx)
		if err == nil {
			began, old := time.Now(), c
			c = p.carrier(conn)
			p.stand(c)
			carrying.Go(p.carry(ctx, c))
			p.g.streamChanged(p, true)
			if old != nil {
				old.close(errReplaced)
			}
			if p.stay(ctx, c) {
				continue // and c goes on
			}
			if ctx.Err() != nil {
				return // c is being ended, and does not know why yet
			}
			err, c = c.err, nil
			if time.Since(began) >= goodStream {
				failures = 0
			}
		} else {
			p.fail(err)
			if c != nil && p.stay(ctx, c) {
				continue
			}
			c = nil
		}
		if ctx.Err() != nil {
			return
		}
		p.g.log.Debug("stream ended", "path", APIServer, "err", err)
		select {
		case <-time.After(backoff(failures, rand.Float64())):
			failures++
		case <-p.doubt:
			failures = 0
		case <-p.again:
			failures = 0
		case <-ctx.Done():
		}
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

func (p *streamPath) carrier(conn net.Conn) *carrier {
	c := newCarrier(p.g.b, conn, &p.rx, &p.tx)
	c.ep = p.g
	p.g.b.heedStream(c)
	return c
}

// stand makes c the path's stream.
func (p *streamPath) stand(c *carrier) {
	p.mu.Lock()
	p.c = c
	p.dials++
	if a := c.c.RemoteAddr(); a != nil {
		p.remote = a.String()
	}
	p.mu.Unlock()
}

// carry returns what moves c's datagrams until it ends.
func (p *streamPath) carry(ctx context.Context, c *carrier) func() {
	return func() {
		stop := context.AfterFunc(ctx, func() { c.close(context.Cause(ctx)) })
		defer stop()
		err := c.run()
		p.mu.Lock()
		last := p.c == c
		if last {
			p.c = nil
		}
		p.mu.Unlock()
		if last {
			p.fail(fmt.Errorf("stream: %w", err))
			p.g.streamChanged(p, false)
		}
	}
}

func (p *streamPath) fail(err error) {
	p.mu.Lock()
	p.lastErr = err
	p.fails++
	p.mu.Unlock()
	signal(p.g.wake) // somebody may want to know
}

// stay waits until c has ended, or reports true when another stream is wanted
// beside it.
func (p *streamPath) stay(ctx context.Context, c *carrier) (another bool) {
	var silent <-chan time.Time
	var rx uint64
	for {
		select {
		case <-c.closed:
			return false
		case <-ctx.Done():
			return false
		case <-p.again:
			// For the stream that is gone, or going.
		case <-p.doubt:
			silent, rx = time.After(doubtFor), p.rx.Load()
		case <-silent:
			if p.rx.Load() == rx {
				return true
			}
			silent = nil
		}
	}
}

// redial ends a stream that is dead, and dials at once.
func (p *streamPath) redial(why string) {
	p.mu.Lock()
	c := p.c
	p.mu.Unlock()
	if c != nil {
		c.close(errors.New(why))
	}
	signal(p.again)
}

func (p *streamPath) current() *carrier {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c
}

func (p *streamPath) send(bufs [][]byte, cancel <-chan struct{}) error {
	c := p.current()
	if c == nil {
		return errNotUp
	}
	c.send(bufs, cancel)
	return nil
}

func (p *streamPath) probe(m []byte) error {
	c := p.current()
	if c == nil {
		return errNotUp
	}
	c.sendControl(m)
	return nil
}

// leave sets those free who wait for the stream to take their datagrams.
func (p *streamPath) leave() {
	if c := p.current(); c != nil {
		c.letGo()
	}
}

func (p *streamPath) is(w way) bool { return w.c != nil && w.c.ep == p.g }

func (p *streamPath) traffic() paths.Traffic {
	return paths.Traffic{Sent: p.tx.Load(), Received: p.rx.Load()}
}

func (p *streamPath) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fails
}

func (p *streamPath) status() PathStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PathStatus{
		Kind: APIServer, Remote: p.remote, RxBytes: p.rx.Load(), TxBytes: p.tx.Load(),
		Redials: max(0, p.dials-1), LastError: p.lastErr,
	}
}
