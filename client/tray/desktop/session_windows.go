package desktop

import (
	"context"
	"errors"
	"io"

	"podnet.dev/client/tray"
)

// enter has nothing to wait for: the library finds the task bar, and finds it again.
func (d *desktop) enter(context.Context, func(), io.Writer) (leave func(), err error) {
	return func() {}, nil
}

// speaker has no way to show notifications here.
type speaker struct{}

func (*speaker) notify(tray.Note) error { return errors.New("not on this system") }
