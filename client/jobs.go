package client

import (
	"context"
	"sync"
)

// jobs does beside the loop of a session what may take a while: calls to the API
// server, waiting for a gateway. At most one of a kind is under way. What comes
// of a job is applied by the loop, so that nothing else needs a lock.
type jobs struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	done   chan *job
	// running are those whose outcome has not been applied; the loop's.
	running map[string]*job
}

type job struct {
	kind    string
	cancel  context.CancelFunc
	outcome outcome
}

// outcome is what came of a job: either apply is called, by the loop, or drop,
// when nobody wants it any more. A nil function is nothing to do.
type outcome struct {
	apply func() error
	drop  func()
}

func newJobs(ctx context.Context) *jobs {
	ctx, cancel := context.WithCancel(ctx)
	return &jobs{ctx: ctx, cancel: cancel, done: make(chan *job), running: map[string]*job{}}
}

// start does a job, unless one of its kind is under way.
func (j *jobs) start(kind string, do func(context.Context) outcome) {
	if j.running[kind] != nil {
		return
	}
	ctx, cancel := context.WithCancel(j.ctx)
	t := &job{kind: kind, cancel: cancel}
	j.running[kind] = t
	j.wg.Go(func() {
		defer cancel()
		t.outcome = do(ctx)
		j.done <- t
	})
}

// stop ends a job; nothing comes of it.
func (j *jobs) stop(kind string) {
	if t := j.running[kind]; t != nil {
		t.cancel()
		delete(j.running, kind)
	}
}

// finish applies what came of a job. An error ends the session.
func (j *jobs) finish(t *job) error {
	if j.running[t.kind] != t {
		t.outcome.dropped()
		return nil
	}
	delete(j.running, t.kind)
	if t.outcome.apply == nil {
		return nil
	}
	return t.outcome.apply()
}

func (o outcome) dropped() {
	if o.drop != nil {
		o.drop()
	}
}

// close ends all jobs and waits.
func (j *jobs) close() {
	j.cancel()
	go func() {
		j.wg.Wait()
		close(j.done)
	}()
	for t := range j.done {
		t.outcome.dropped()
	}
}
