// Package tunfd has TUN devices that were made elsewhere: by whoever may, or in another
// network namespace. What else becomes of such an interface is done elsewhere, too. To
// set its MTU, as wireguard-go's own constructor does, takes a privilege, and from
// another namespace it cannot even be asked for; so the device is told.
package tunfd

import (
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// Device is a TUN device, by its descriptor.
type Device struct {
	tun.Device
	events chan tun.Event

	mu     sync.Mutex
	mtu    int
	closed bool
}

// Open takes over fd, also when it fails. mtu is the interface's, in bytes.
func Open(fd, mtu int) (*Device, error) {
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	d := &Device{Device: dev, mtu: mtu, events: make(chan tun.Event, 2)}
	d.events <- tun.EventUp
	return d, nil
}

// Events tells that the device is up, and of each other MTU.
func (d *Device) Events() <-chan tun.Event { return d.events }

// MTU is what was told last, in bytes.
func (d *Device) MTU() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mtu, nil
}

// SetMTU tells what the interface's has become, in bytes; 0: nothing new.
func (d *Device) SetMTU(mtu int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if mtu == 0 || mtu == d.mtu || d.closed {
		return
	}
	d.mtu = mtu
	select {
	case d.events <- tun.EventMTUUpdate:
	default: // one is on its way, and whoever gets it asks then
	}
}

// Break makes reads and writes fail, whoever waits in one; Close is still to come.
func (d *Device) Break() { _ = d.Device.Close() }

// Close is idempotent.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.events)
	return d.Device.Close()
}
