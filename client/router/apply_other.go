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

// Read asks the kernel for links and routes.
func Read() (Host, error) {
	return Host{}, fmt.Errorf("podnet cannot read routes on %s yet", runtime.GOOS)
}
