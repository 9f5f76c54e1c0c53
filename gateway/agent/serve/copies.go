package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
)

const (
	// maxCopied is how many bytes of a copy may wait for its laptop.
	maxCopied = 4 << 20
	// copyTime is how long a copy may take after its connection has ended.
	copyTime = 5 * time.Second
)

var errSlowCopy = errors.New("the laptop does not take the copy as fast as it comes")

// copies are those of one connection.
type copies []*tee

// tee copies what a client sends to one rule's laptop. Whoever carries the
// connection only ever adds to its queue, and never waits.
type tee struct {
	conn   *conn
	rule   *steer.Rule
	seen   steer.Seen
	ctx    context.Context // its cause is why no more is copied
	cancel context.CancelCauseFunc
	wake   chan struct{} // the queue or ended has changed
	done   chan struct{} // run is over

	mu    sync.Mutex
	queue [][]byte
	size  int  // of the queue
	ended bool // no more will come
}

func (c *conn) openCopies(rules []*steer.Rule) copies {
	var all copies
	for _, r := range rules {
		t := &tee{
			conn: c, rule: r, wake: make(chan struct{}, 1), done: make(chan struct{}),
			seen: steer.Seen{Rule: r, Mirror: true, Began: c.began},
		}
		t.ctx, t.cancel = context.WithCancelCause(c.s.ctx)
		all = append(all, t)
		go t.run()
	}
	return all
}

// add copies a part.
func (all copies) add(b []byte) {
	for _, t := range all {
		t.add(slices.Clone(b))
	}
}

// end says that the client has sent everything.
func (all copies) end() {
	for _, t := range all {
		t.mu.Lock()
		t.ended = true
		t.mu.Unlock()
		t.changed()
	}
}

// close gives what is left copyTime, or until ctx ends, and waits for it. What
// the client did not end itself is cut short.
func (all copies) close(ctx context.Context) {
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	for _, t := range all {
		t.mu.Lock()
		ended := t.ended
		t.mu.Unlock()
		if !ended {
			t.cancel(io.ErrUnexpectedEOF)
		}
		defer context.AfterFunc(ctx, func() { t.cancel(ctx.Err()) })()
	}
	for _, t := range all {
		<-t.done
	}
}

func (t *tee) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	if t.size+len(b) > maxCopied || !t.conn.s.waiting.Take(len(b)) {
		t.cancel(errSlowCopy)
		return
	}
	t.size += len(b)
	t.queue = append(t.queue, b)
	t.changed()
}

func (t *tee) changed() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// next waits for a part; io.EOF: there will be none.
func (t *tee) next() ([]byte, error) {
	for {
		if t.ctx.Err() != nil {
			return nil, context.Cause(t.ctx)
		}
		t.mu.Lock()
		if len(t.queue) > 0 {
			b := t.queue[0]
			t.queue = t.queue[1:]
			t.shrinkLocked(len(b))
			t.mu.Unlock()
			return b, nil
		}
		ended := t.ended
		t.mu.Unlock()
		if ended {
			return nil, io.EOF
		}
		select {
		case <-t.wake:
		case <-t.ctx.Done():
		}
	}
}

func (t *tee) shrinkLocked(n int) {
	t.size -= n
	t.conn.s.waiting.Give(n)
}

func (t *tee) run() {
	defer close(t.done)
	err := t.send()
	if t.ctx.Err() != nil {
		err = context.Cause(t.ctx)
	}
	t.cancel(err)
	t.mu.Lock()
	t.queue = nil
	t.shrinkLocked(t.size)
	t.mu.Unlock()
	t.conn.report(t.seen, err)
}

// send sends until no more comes, and throws away what the laptop says.
func (t *tee) send() error {
	conn, err := t.conn.s.dialLaptop(t.ctx, t.rule)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(t.ctx, func() { conn.Close() })()
	if err := t.conn.writeProxyHeader(conn, t.rule); err != nil {
		return err
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		io.Copy(io.Discard, conn)
	}()
	defer func() { <-answered }()
	defer conn.Close() // before it is waited for
	for {
		b, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
		t.seen.In += int64(len(b))
	}
	// The laptop closes when it has read all, and has said what it had to say.
	if err := splice.CloseWrite(conn); err != nil {
		return err
	}
	<-answered
	return nil
}
