//go:build !linux

package pump

import (
	"context"
	"errors"
	"net"
)

// Pump is for Linux only.
type Pump struct{}

// New returns an error that is errors.ErrUnsupported.
func New() (*Pump, error) { return nil, errors.ErrUnsupported }

// Run does nothing.
func (*Pump) Run(context.Context) error { return errors.ErrUnsupported }

// Add does nothing.
func (*Pump) Add(_, _ *net.TCPConn, _ []byte, _ Flow) error { return errors.ErrUnsupported }
