package remote

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// device is an interface that was made elsewhere. What else becomes of it is done
// elsewhere too: to set its MTU, as wireguard-go's own constructor does, takes a
// privilege, and to watch it is of no use.
type device struct {
	tun.Device
	events chan tun.Event

	mu     sync.Mutex
	mtu    int
	closed bool
}

// openDevice takes a copy of the file, which stays its caller's.
func openDevice(file *os.File) (*device, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &device{Device: dev, events: make(chan tun.Event, 1)}, nil
}

func (d *device) Events() <-chan tun.Event { return d.events }

// resized tells of another MTU in bytes; 0: none.
func (d *device) resized(mtu int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || mtu == 0 || mtu == d.mtu {
		return
	}
	d.mtu = mtu
	select {
	case d.events <- tun.EventMTUUpdate:
	default: // one is on its way, and whoever gets it looks then
	}
}

// end makes reads fail, whoever waits in one.
func (d *device) end() { _ = d.Device.Close() }

func (d *device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.events)
	return d.Device.Close()
}
