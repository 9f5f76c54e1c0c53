package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// caller asks the process at the other end of a wire: the agent, or who keeps a sandbox
// for others.
type caller struct {
	wire *wire
	// gone is closed when the other end is.
	gone chan struct{}

	asking  sync.Mutex
	next    uint64
	waiting map[uint64]chan reply
}

func newCaller(w *wire) *caller {
	return &caller{wire: w, gone: make(chan struct{}), waiting: map[uint64]chan reply{}}
}

// hear takes what is answered to whoever asked, until the other end is gone.
func (c *caller) hear() error {
	defer c.wire.close()
	defer close(c.gone)
	for {
		var r reply
		if c.wire.decoder.Decode(&r) != nil {
			return nil
		}
		fds, err := c.wire.claim(r.Files)
		if err != nil {
			return err
		}
		r.fds = fds
		c.asking.Lock()
		to := c.waiting[r.ID]
		delete(c.waiting, r.ID)
		c.asking.Unlock()
		if to == nil {
			fds.close()
			continue
		}
		to <- r
	}
}

// errGone is what an agent that has ended answers.
var errGone = errors.New("the sandbox is gone")

// post sends a request; its answer comes by the channel.
func (c *caller) post(r request, files ...int) (id uint64, _ <-chan reply, err error) {
	answer := make(chan reply, 1)
	c.asking.Lock()
	c.next++
	r.ID, r.Files = c.next, len(files)
	c.waiting[r.ID] = answer
	c.asking.Unlock()
	if err := c.wire.send(r, files...); err != nil {
		c.asking.Lock()
		delete(c.waiting, r.ID)
		c.asking.Unlock()
		return 0, nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return r.ID, answer, nil
}

// ask is for what does not take long.
func (c *caller) ask(ctx context.Context, r request, files ...int) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	id, answer, err := c.post(r, files...)
	if err != nil {
		return reply{}, err
	}
	select {
	case out := <-answer:
		return out, out.err()
	case <-c.gone:
		select {
		case out := <-answer: // its last words
			return out, out.err()
		default:
		}
		return reply{}, errGone
	case <-ctx.Done():
		c.asking.Lock()
		delete(c.waiting, id)
		c.asking.Unlock()
		select {
		case out := <-answer: // in between
			out.fds.close()
		default:
		}
		return reply{}, ctx.Err()
	}
}

func (r reply) err() error {
	switch {
	case r.Conflict != nil:
		return r.Conflict
	case r.Failure != nil:
		return r.Failure
	}
	return nil
}

// Run runs a command and says how it ended. Signals go to it. When ctx is done it is
// told to end, by SIGTERM. An error says that it was not started, or what came between.
func (c *caller) Run(ctx context.Context, what Command, signals <-chan os.Signal) (Exit, error) {
	id, answer, err := c.post(request{Run: &what}, int(what.Files[0].Fd()), int(what.Files[1].Fd()), int(what.Files[2].Fd()))
	if err != nil {
		return Exit{}, err
	}
	tell := func(sig syscall.Signal) { _ = c.wire.send(request{Signal: sig, Of: id}) }
	done := ctx.Done()
	for {
		select {
		case out := <-answer:
			if out.Exit == nil {
				return Exit{}, out.err()
			}
			return *out.Exit, nil
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok {
				tell(n)
			}
		case <-done:
			done = nil
			tell(syscall.SIGTERM)
		case <-c.gone:
			select {
			case out := <-answer: // its last words
				if out.Exit != nil {
					return *out.Exit, nil
				}
			default:
			}
			return Exit{}, errGone
		}
	}
}
