//go:build unix && !linux

package remote

import (
	"fmt"
	"os"
	"runtime"

	"golang.zx2c4.com/wireguard/tun"
)

// device is an interface that was made elsewhere.
type device struct{ tun.Device }

func openDevice(*os.File, int) (*device, error) {
	return nil, fmt.Errorf("podnet has no interface of its helper's on %s yet", runtime.GOOS)
}

func (*device) SetMTU(int) {}
func (*device) Break()     {}
