package serve

import (
	"context"
	"io"
	"net"

	"podnet.dev/internal/rawtcp"
	"podnet.dev/internal/steer"
)

// whole is a connection that is not decided by request, in a pump or not.
type whole struct {
	conn   *conn
	copies copies
	seen   steer.Seen
	tell   bool
}

// connect gives who answers: the laptop of steal, or the app. What the app has said
// is nobody's where a laptop was to answer.
func (w *whole) connect(ctx context.Context, steal *steer.Rule, o *opening) (net.Conn, error) {
	c := w.conn
	if steal != nil {
		o.app, o.appErr = nil, nil
		peer, err := c.stealWhole(ctx, steal)
		if err == nil {
			return peer, nil
		}
		c.report(w.seen, err)
		if !steal.ToApp {
			return nil, err
		}
		w.seen.Rule = nil
	}
	if o.appErr != nil && o.appErr != io.EOF {
		return nil, o.appErr
	}
	return c.App(ctx)
}

// open passes on what was read before, and reports whether that went well.
func (w *whole) open(app net.Conn, o *opening) bool {
	if _, err := app.Write(o.client); err != nil {
		return false
	}
	if _, err := w.conn.client.Write(o.app); err != nil {
		return false
	}
	w.FromClient(o.client)
	w.FromApp(o.app)
	*o = opening{}
	return true
}

// join carries the connection to its end without a pump.
func (w *whole) join(ctx context.Context, client, peer end) {
	in, out, err := join(ctx, client, peer, w.copies)
	w.seen.In += in
	w.seen.Out += out
	w.end(ctx, err)
}

// end tells of the connection, which is over, and waits for its copies.
func (w *whole) end(ctx context.Context, err error) {
	w.conn.ended(err)
	if w.tell {
		w.conn.report(w.seen, err)
	}
	w.copies.close(ctx)
}

// FromClient implements pump.Flow.
func (w *whole) FromClient(b []byte) int {
	w.copies.add(b)
	w.seen.In += int64(len(b))
	return len(b)
}

// FromApp implements pump.Flow.
func (w *whole) FromApp(b []byte) int {
	w.seen.Out += int64(len(b))
	return len(b)
}

// Left implements pump.Flow.
func (w *whole) Left(client, app *net.TCPConn, _, _ []byte) {
	w.conn.back(client, func(ctx context.Context) {
		w.join(ctx, end{w.conn.client, nil}, end{rawtcp.New(app), nil})
	})
}

// Ended implements pump.Flow.
func (w *whole) Ended(err error) {
	if err == nil {
		w.copies.end()
	}
	s := w.conn.s
	s.wg.Go(func() { // as the copies may take their time
		defer s.conns.Add(-1)
		w.end(s.ctx, err)
	})
}
