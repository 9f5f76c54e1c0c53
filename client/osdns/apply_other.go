//go:build !linux && !darwin && !windows

package osdns

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// errNotYet says so before anything is changed.
func errNotYet() error {
	return fmt.Errorf("set up dns: not supported yet on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func newManager(context.Context, Options) (Manager, error) { return nil, errNotYet() }

// cleanup has nothing to undo where nothing can be done.
func cleanup(context.Context, Options) error { return nil }

func syncDir(string) error { return nil }
