//go:build !linux

package router

import (
	"fmt"
	"runtime"
)

// New makes the Router of this host.
func New() (Router, error) {
	return nil, fmt.Errorf("podnet cannot set routes on %s yet", runtime.GOOS)
}
