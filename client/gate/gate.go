// Package gate keeps what the host sends from a tunnel for a time: a session whose
// packets are to leave from a pod sends none while there is no such pod, rather than
// from somewhere else.
package gate

import (
	"net/netip"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
)

// Device is the host's device with a gate before it.
type Device struct {
	tun.Device
	shut   func() bool
	always func(to netip.AddrPort) bool
}

// New puts a gate before host, which the Device owns. While shut says so, which is
// asked for each batch, packets from the host are dropped, unless they are TCP or UDP
// to where they may always go. Packets to the host pass.
func New(host tun.Device, shut func() bool, always func(to netip.AddrPort) bool) *Device {
	return &Device{host, shut, always}
}

// Read reads what the host sends.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.Device.Read(bufs, sizes, offset)
	if n == 0 || !d.shut() {
		return n, err
	}
	kept := 0
	for i := range n {
		p := bufs[i][offset : offset+sizes[i]]
		if !d.passes(p) {
			continue
		}
		if kept != i {
			sizes[kept] = copy(bufs[kept][offset:], p)
		}
		kept++
	}
	return kept, err
}

func (d *Device) passes(b []byte) bool {
	p, ok := packet.Parse(b)
	if !ok {
		return false
	}
	_, to, ok := p.Ports()
	return ok && d.always(to)
}
