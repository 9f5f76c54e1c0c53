package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// pool keeps connections between questions. A connection carries one question
// at a time, so no two in flight share a source port, and none needs a reader
// of its own.
type pool struct {
	dial    Dial
	network string
	max     int           // kept per server
	idle    time.Duration // kept for this long
	uses    int           // then closed, so that source ports keep changing; 0: no limit

	mu     sync.Mutex
	kept   map[string][]*pooled // by server, the one used last at the end
	sweep  *time.Timer
	closed bool
}

// pooled is one connection of a pool.
type pooled struct {
	net.Conn
	server string
	stream bool
	uses   int
	since  time.Time // of its last use
	in     []byte    // room for one datagram
}

// get gives a kept connection if there is one, else a new one.
func (p *pool) get(ctx context.Context, server string) (c *pooled, kept bool, err error) {
	p.mu.Lock()
	if list := p.kept[server]; len(list) > 0 {
		c = list[len(list)-1]
		p.kept[server] = list[:len(list)-1]
	}
	p.mu.Unlock()
	if c != nil {
		if time.Since(c.since) < p.idle {
			return c, true, nil
		}
		c.Close()
	}
	conn, err := p.dial(ctx, p.network, server)
	if err != nil {
		return nil, false, fmt.Errorf("dial %s %s: %w", p.network, server, err)
	}
	return &pooled{Conn: conn, server: server, stream: p.network == "tcp"}, false, nil
}

// put keeps c for the next question, or closes it.
func (p *pool) put(c *pooled) {
	c.uses++
	c.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.kept[c.server]) >= p.max || (p.uses > 0 && c.uses >= p.uses) {
		c.Close()
		return
	}
	if p.kept == nil {
		p.kept = map[string][]*pooled{}
	}
	p.kept[c.server] = append(p.kept[c.server], c)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(p.idle, p.expire)
	}
}

// expire closes what has idled too long and comes again while something is
// kept.
func (p *pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	for server, list := range p.kept {
		n := 0
		for n < len(list) && time.Since(list[n].since) >= p.idle {
			list[n].Close()
			n++
		}
		if p.kept[server] = list[n:]; len(list) == n {
			delete(p.kept, server)
		}
	}
	if len(p.kept) > 0 && !p.closed {
		p.sweep = time.AfterFunc(p.idle, p.expire)
	}
}

// forget closes what is kept for a server.
func (p *pool) forget(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.kept[server] {
		c.Close()
	}
	delete(p.kept, server)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
		p.sweep = nil
	}
	for _, list := range p.kept {
		for _, c := range list {
			c.Close()
		}
	}
	p.kept = nil
}

func (c *pooled) send(wire []byte) error {
	if c.stream {
		return writeFrame(c.Conn, wire)
	}
	_, err := c.Write(wire)
	return err
}

// receive reads one message. For datagrams it is valid until the next call.
func (c *pooled) receive() ([]byte, error) {
	if c.stream {
		return readFrame(c.Conn)
	}
	if c.in == nil {
		c.in = make([]byte, 4096)
	}
	n, err := c.Read(c.in)
	return c.in[:n], err
}
