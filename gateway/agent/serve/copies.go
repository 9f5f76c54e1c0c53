package serve

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/backlog"
)

const (
	// maxCopied is how many bytes of a copy may wait for its laptop.
	maxCopied = 4 << 20
	// copyTime is how long a copy may take after its connection has ended.
	copyTime = 5 * time.Second
	// gatherTime is how long a copy waits behind a small part of it for more that
	// goes with it, and twice as long behind each such part that follows, up to
	// maxGatherTime: each packet to a laptop costs the pod's node more than a request
	// costs that is passed on.
	gatherTime    = 50 * time.Millisecond
	maxGatherTime = 4 * gatherTime
	smallPart     = 4 << 10
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
	wake   chan struct{} // the queue has changed
	ended  chan struct{} // closed: no more will come
	done   chan struct{} // closed: run is over

	mu    sync.Mutex
	queue *backlog.Queue
}

func (c *conn) openCopies(rules []*steer.Rule) copies {
	var all copies
	for _, r := range rules {
		t := &tee{
			conn: c, rule: r, wake: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{}),
			seen:  steer.Seen{Rule: r, Mirror: true, Began: c.began},
			queue: backlog.NewQueue(c.s.waiting, maxCopied),
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
		t.add(b)
	}
}

// end says that the client has sent everything.
func (all copies) end() {
	for _, t := range all {
		close(t.ended)
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
		if !isClosed(t.ended) {
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
	if !t.queue.Add(b) {
		t.cancel(errSlowCopy)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// next waits for a part; io.EOF: there will be none. written is the part before,
// which is not used any more. idle says that nothing was there.
func (t *tee) next(written []byte) (b []byte, idle bool, err error) {
	for ; ; written, idle = nil, true {
		if t.ctx.Err() != nil {
			return nil, idle, context.Cause(t.ctx)
		}
		ended := isClosed(t.ended)
		t.mu.Lock()
		t.queue.Reuse(written)
		b := t.queue.Next()
		t.mu.Unlock()
		switch {
		case b != nil:
			return b, idle, nil
		case ended:
			return nil, idle, io.EOF
		}
		select {
		case <-t.wake:
		case <-t.ended:
		case <-t.ctx.Done():
		}
	}
}

// gather lets more come.
func (t *tee) gather(d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.ended:
	case <-t.ctx.Done():
	}
}

func (t *tee) run() {
	defer close(t.done)
	err := t.send()
	if t.ctx.Err() != nil {
		err = context.Cause(t.ctx)
	}
	t.cancel(err)
	t.mu.Lock()
	t.queue.Drop()
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
	gather := gatherTime
	for b, idle := []byte(nil), false; ; {
		if b, idle, err = t.next(b); err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if idle {
			gather = gatherTime
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
		t.seen.In += int64(len(b))
		if len(b) < smallPart {
			t.gather(gather)
			gather = min(2*gather, maxGatherTime)
		}
	}
	// The laptop closes when it has read all, and has said what it had to say.
	if err := splice.CloseWrite(conn); err != nil {
		return err
	}
	<-answered
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
