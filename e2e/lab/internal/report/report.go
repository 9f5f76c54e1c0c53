// Package report tells the user what the lab does, with timings.
package report

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Report writes lines such as "lab   3.2s  API server answers (2.1s)".
type Report struct {
	start time.Time

	mu sync.Mutex
	w  io.Writer
}

// New begins to count from now.
func New(w io.Writer) *Report { return &Report{start: time.Now(), w: w} }

// Say writes a line.
func (r *Report) Say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.w, "lab %6.1fs  %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

// Step does something and says how long it took, unless it failed: the error
// speaks for itself.
func (r *Report) Step(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.Say("%s (%.1fs)", what, time.Since(start).Seconds())
	return nil
}

// Since is the time since the report began.
func (r *Report) Since() time.Duration { return time.Since(r.start) }
