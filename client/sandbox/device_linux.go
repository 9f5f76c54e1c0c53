package sandbox

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// device is a TUN device of another network namespace, by its descriptor: what else
// there is to know about it cannot be asked from here.
type device struct {
	tun.Device
	events chan tun.Event

	mu   sync.Mutex
	mtu  int
	over bool
}

// newDevice takes over fd.
func newDevice(fd, mtu int) (*device, error) {
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	d := &device{Device: dev, mtu: mtu, events: make(chan tun.Event, 4)}
	d.events <- tun.EventUp
	return d, nil
}

func (d *device) Events() <-chan tun.Event { return d.events }

func (d *device) MTU() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mtu, nil
}

// setMTU notes what the interface's has become, and has the tunnel look.
func (d *device) setMTU(mtu int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if mtu == 0 || mtu == d.mtu || d.over {
		return
	}
	d.mtu = mtu
	select {
	case d.events <- tun.EventMTUUpdate:
	default: // one that is waiting will do: it makes the tunnel ask
	}
}

func (d *device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return nil
	}
	d.over = true
	close(d.events)
	return d.Device.Close()
}

// closed says that a device takes no packets any more.
func closed(err error) bool { return errors.Is(err, os.ErrClosed) }
