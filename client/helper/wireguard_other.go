//go:build !linux

package helper

import (
	"fmt"
	"net"
	"runtime"
)

// wireGuard is a device that there cannot be.
type wireGuard struct{}

func (*wireGuard) close() error { return nil }

var errNotHere = fmt.Errorf("podnet knows no WireGuard in the kernel of %s", runtime.GOOS)

func (*session) WireGuard(int) (string, *net.UDPConn, error) {
	return "", nil, &NoWireGuardError{errNotHere}
}
func (*session) SetWireGuard(WireGuard) error            { return errNotHere }
func (*session) WireGuardState() (WireGuardState, error) { return WireGuardState{}, errNotHere }
