package http1

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/backlog"
)

const (
	// maxMirrored is how many bytes of copies may wait for a laptop.
	maxMirrored = 4 << 20
	// pieceCost is what a piece of a copy takes besides its bytes, about, with what
	// is known of the request.
	pieceCost = 512
)

var (
	errSlowMirror = errors.New("the laptop does not take the copies as fast as they come")
	errOtherRule  = errors.New("another rule has its name")
)

// mirror sends copies of a connection's requests to one rule's laptop, one behind
// the other, and reads what it answers. Whoever has a request only ever puts
// pieces into its queue, and never waits.
type mirror struct {
	conn   *conn
	rule   *steer.Rule
	ctx    context.Context // its cause is why no copies are taken any more
	cancel context.CancelCauseFunc
	wake   chan struct{} // the queue or closed has changed
	budget *backlog.Budget

	mu     sync.Mutex
	queue  []piece
	size   int  // of the queue
	closed bool // no more will come

	// Of run.
	up   *mirrorConn // nil: there is no connection
	copy *steer.Seen // the one that is sent
}

// piece is a part of a copy.
type piece struct {
	begins *steer.Seen // it is the first part of this one
	b      []byte
	ends   bool // it is the last part
}

// cost is what a piece takes of the budget. The end of a copy has to be told even
// where nothing is left.
func (p *piece) cost() int {
	if len(p.b) == 0 {
		return 0
	}
	return len(p.b) + pieceCost
}

// openMirrors begins the copies of a request.
func (c *conn) openMirrors(ex *exchange, rules []*steer.Rule, head []byte) {
	for _, r := range rules {
		m := c.mirrors[r.Name]
		if m != nil && !m.rule.Is(r) {
			m.cancel(errOtherRule)
			m = nil
		}
		if m == nil {
			m = c.newMirror(r)
		}
		seen := ex.seen
		seen.Rule, seen.Mirror = r, true
		if err := m.open(seen, head); err != nil {
			seen.Err = err
			c.see.Seen(seen)
			continue
		}
		ex.mirrors = append(ex.mirrors, m)
	}
}

func (c *conn) newMirror(r *steer.Rule) *mirror {
	m := &mirror{conn: c, rule: r, wake: make(chan struct{}, 1), budget: backlog.Of(c.out)}
	// It outlives the connection, if only for a moment.
	m.ctx, m.cancel = context.WithCancelCause(context.WithoutCancel(c.ctx))
	if c.mirrors == nil {
		c.mirrors = make(map[string]*mirror)
	}
	c.mirrors[r.Name] = m
	c.copies.Go(m.run)
	return m
}

// mirror copies a part of the body.
func (ex *exchange) mirror(b []byte) {
	if len(b) == 0 {
		return
	}
	for _, m := range ex.mirrors {
		m.put(piece{b: slices.Clone(b)})
	}
}

// endMirrors says that the request is through, or never will be.
func (ex *exchange) endMirrors() {
	for _, m := range ex.mirrors {
		m.end()
	}
}

// finishMirrors gives the copies that are left mirrorTime, or until ctx ends.
func (c *conn) finishMirrors(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, mirrorTime)
	defer cancel()
	for _, m := range c.mirrors {
		stop := context.AfterFunc(ctx, func() { m.cancel(ctx.Err()) })
		defer stop()
		m.close()
	}
	c.copies.Wait()
}

// open begins a copy. An error says why no copies are taken any more.
func (m *mirror) open(seen steer.Seen, head []byte) error {
	if m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	seen.Host = strings.Clone(seen.Host) // not with all the fields around it
	return m.put(piece{begins: &seen, b: insertAfterLine(head, steer.Mirrored, m.rule.Owner)})
}

// put appends to the queue. An error is as of open.
func (m *mirror) put(p piece) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cost := p.cost()
	if m.ctx.Err() == nil && m.size+cost <= maxMirrored && m.budget.Take(cost) {
		m.size += cost
		m.queue = append(m.queue, p)
		m.changed()
		return nil
	}
	m.cancel(errSlowMirror)
	return context.Cause(m.ctx)
}

// end makes what was put last the end of its copy.
func (m *mirror) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := len(m.queue) - 1; last >= 0 {
		m.queue[last].ends = true
		return
	}
	if m.ctx.Err() == nil {
		m.queue = append(m.queue, piece{ends: true})
		m.changed()
	}
}

func (m *mirror) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.changed()
}

func (m *mirror) changed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// next waits for a piece; false: there will be none.
func (m *mirror) next() (piece, bool) {
	for {
		m.mu.Lock()
		if len(m.queue) > 0 && m.ctx.Err() == nil {
			p := m.queue[0]
			m.queue = m.queue[1:]
			m.dropLocked(p.cost())
			m.mu.Unlock()
			return p, true
		}
		closed := m.closed
		m.mu.Unlock()
		if closed || m.ctx.Err() != nil {
			return piece{}, false
		}
		select {
		case <-m.wake:
		case <-m.ctx.Done():
		}
	}
}

// run sends until no more comes or the laptop is too slow.
func (m *mirror) run() {
	for {
		p, ok := m.next()
		if !ok {
			break
		}
		m.send(p)
	}
	m.fail(io.ErrUnexpectedEOF)
	m.hangUp()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.queue { // there is something only when ctx is over
		if p.begins != nil {
			m.tell(p.begins, Response{}, context.Cause(m.ctx))
		}
	}
	m.queue = nil
	m.dropLocked(m.size)
	m.cancel(nil)
}

// dropLocked notes that so much less waits.
func (m *mirror) dropLocked(cost int) {
	m.size -= cost
	m.budget.Give(cost)
}

// send sends a piece. Copies do not overtake each other, and each waits for the
// response to the one before it, as from the simplest of clients.
func (m *mirror) send(p piece) {
	if p.begins != nil {
		m.begin(p.begins)
	}
	if m.copy == nil {
		return // it has failed
	}
	if len(p.b) > 0 {
		if _, err := m.up.conn.Write(p.b); err != nil {
			m.fail(err)
			return
		}
		m.copy.In += int64(len(p.b))
	}
	if !p.ends {
		return
	}
	response, err := m.up.answer()
	if err != nil || !response.Persistent || response.Upgraded || response.UntilEnd {
		m.hangUp()
	}
	m.tell(m.copy, response, err)
	m.copy = nil
}

// begin finds a connection for a copy.
func (m *mirror) begin(copy *steer.Seen) {
	if m.up != nil && m.up.isOver() {
		m.hangUp()
	}
	if m.up == nil {
		up, err := m.conn.dial(m.ctx, m.rule)
		if err != nil {
			m.tell(copy, Response{}, err)
			return
		}
		m.up = newMirrorConn(m.ctx, up.conn)
	}
	m.copy = copy
	m.up.ask(copy.Method)
}

// fail gives up the copy that is sent, if there is one.
func (m *mirror) fail(err error) {
	if m.copy == nil {
		return
	}
	m.up.conn.Close()
	response, _ := m.up.answer()
	m.hangUp()
	m.tell(m.copy, response, err)
	m.copy = nil
}

func (m *mirror) hangUp() {
	if m.up != nil {
		m.up.close()
		m.up = nil
	}
}

func (m *mirror) tell(copy *steer.Seen, response Response, err error) {
	if err != nil && m.ctx.Err() != nil {
		err = context.Cause(m.ctx)
	}
	copy.Err = err
	copy.Status = response.Status
	copy.Took = time.Since(copy.Began)
	m.conn.see.Seen(*copy)
}
