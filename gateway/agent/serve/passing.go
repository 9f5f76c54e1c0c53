package serve

import (
	"context"
	"net"
	"runtime"
	"sync"

	"podnet.dev/internal/pump"
	"podnet.dev/internal/rawtcp"
	"podnet.dev/internal/steer/http1"
)

// pumps carry the connections that are only passed on. The zero pumps are ready.
type pumps struct {
	mu   sync.Mutex
	all  []*pump.Pump
	next int
}

// of gives the pump for a connection, of as many as there are processors for us. An
// error says that there is none.
func (p *pumps) of(s *Server) (*pump.Pump, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) < runtime.GOMAXPROCS(0) {
		next, err := pump.New()
		if err != nil {
			return nil, err
		}
		p.all = append(p.all, next)
		s.wg.Go(func() {
			if err := next.Run(s.ctx); err != nil {
				s.Log.Warn("connections are passed on no more", "err", err)
			}
		})
	}
	p.next++
	return p.all[p.next%len(p.all)], nil
}

// pump has a pump carry the connection with the app, and reports whether it does: then
// nothing of the connection is to be touched any more. first is what the flow has seen
// and was not passed on yet.
func (c *conn) pump(app *rawtcp.Conn, first []byte, flow pump.Flow) bool {
	client := c.client
	p, err := c.s.pumps.of(c.s)
	if err == nil {
		err = p.Add(client.TCPConn, app.TCPConn, first, flow)
	}
	if err != nil {
		c.s.Log.Debug("steered connection is not pumped", "addr", c.to, "err", err)
		return false
	}
	client.Close()
	app.Close()
	return true
}

// passOn has a pump carry an HTTP/1 connection that begins with first, if that is the
// app's alone, and reports whether it does.
func (c *conn) passOn(first []byte) bool {
	p := &passing{http1.NewPassage(c.rules, c.see), c}
	if p.FromClient(first) < len(first) {
		return false
	}
	knock := c.takeKnock()
	if c.pump(knock, first, p) {
		return true
	}
	c.mu.Lock()
	c.knock = knock
	c.mu.Unlock()
	return false
}

// passing is an HTTP/1 connection in a pump.
type passing struct {
	*http1.Passage
	conn *conn
}

// Left implements pump.Flow.
func (p *passing) Left(client, app *net.TCPConn, first, fromApp []byte) {
	p.conn.back(client, func(ctx context.Context) {
		p.conn.ended(p.Serve(ctx, p.conn.addressed(), first, rawtcp.New(app), fromApp, p.conn))
	})
}

// Ended implements pump.Flow.
func (p *passing) Ended(err error) {
	p.Passage.Ended(err)
	p.conn.ended(err)
	p.conn.s.conns.Add(-1)
}

// back has f carry what a pump does no more.
func (c *conn) back(client *net.TCPConn, f func(context.Context)) {
	c.client = rawtcp.New(client)
	c.s.wg.Go(func() {
		defer c.s.conns.Add(-1)
		defer c.client.Close()
		defer c.dropKnock()
		f(c.s.ctx)
	})
}
