//go:build !linux

package serve

import "errors"

func (portSet) ask() error { return errors.ErrUnsupported }
