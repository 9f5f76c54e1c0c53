package client

import (
	"context"
	"errors"
	"testing"
)

// TestJobs: one of a kind at a time, and each outcome is applied or dropped.
func TestJobs(t *testing.T) {
	j := newJobs(t.Context())
	var applied, dropped []string
	run := func(kind, name string, wait bool) {
		j.start(kind, func(ctx context.Context) outcome {
			if wait {
				<-ctx.Done()
			}
			return outcome{
				apply: func() error { applied = append(applied, name); return errors.New(name) },
				drop:  func() { dropped = append(dropped, name) },
			}
		})
	}
	run("ask", "first", false)
	run("ask", "second", false) // while the first is not finished
	if err := j.finish(<-j.done); err == nil || err.Error() != "first" {
		t.Errorf("got %v", err)
	}
	run("find", "stopped", true)
	j.stop("find")
	run("find", "stopped instead", true)
	if err := j.finish(<-j.done); err != nil {
		t.Errorf("the outcome of a stopped job: %v", err)
	}
	j.stop("nothing")
	j.start("silent", func(context.Context) outcome { return outcome{} })
	if err := j.finish(<-j.done); err != nil {
		t.Error(err)
	}
	j.close()
	if len(applied) != 1 || len(dropped) != 2 || dropped[0] != "stopped" || dropped[1] != "stopped instead" {
		t.Errorf("applied %v, dropped %v", applied, dropped)
	}
}
