package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// undoTime is for each step of the undoing.
const undoTime = 5 * time.Second

// undo is the list of what to take back.
type undo struct {
	mu    sync.Mutex
	steps []undoStep
}

type undoStep struct {
	what string
	do   func(context.Context) error
}

func (u *undo) add(what string, do func(context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.steps = append(u.steps, undoStep{what, do})
}

// run takes everything back, the last first. A step that fails does not keep
// the others from being tried.
func (u *undo) run(ctx context.Context, log *slog.Logger) {
	u.mu.Lock()
	steps := u.steps
	u.steps = nil
	u.mu.Unlock()
	for _, s := range slices.Backward(steps) {
		ctx, cancel := context.WithTimeout(ctx, undoTime)
		if err := s.do(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Warn("undoing failed", "what", s.what, "err", fmt.Errorf("undo %s: %w", s.what, err))
		}
		cancel()
	}
}
