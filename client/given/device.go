package given

import (
	"net/netip"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
)

// headroom is what devices want to have before a packet (Linux: virtio_net_hdr of 10
// bytes).
const headroom = 16

// Device is the host's device, with a Book before it.
type Device struct {
	tun.Device
	book  *Book
	first func(to netip.Addr)
}

// New puts book before host, which the Device owns. Packets from the host that the
// book does not let pass come back as ICMP errors, as the gateway refuses what policy
// forbids; first hears of the first of them. Packets to the host pass.
func New(host tun.Device, book *Book, first func(to netip.Addr)) *Device {
	return &Device{host, book, first}
}

// Read reads what the host sends.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.Device.Read(bufs, sizes, offset)
	v := d.book.guards()
	if v == nil {
		return n, err
	}
	kept, turn := 0, d.book.turn.Load()
	var same netip.Addr // that is known: most of a batch goes to one
	for i := range n {
		p := bufs[i][offset : offset+sizes[i]]
		if to := destination(p); to != same {
			switch fate := v.judge(to, p, turn); fate {
			case known:
				same = to
			case refuse, drop:
				d.refuse(to, p, fate)
				continue
			}
		}
		if kept != i {
			sizes[kept] = copy(bufs[kept][offset:], p)
		}
		kept++
	}
	return kept, err
}

// refuse counts a packet that does not pass, and has its sender know at once.
func (d *Device) refuse(to netip.Addr, p []byte, fate verdict) {
	if d.book.refuse(to) {
		d.first(to)
	}
	if fate == drop {
		return
	}
	b := make([]byte, headroom+packet.UnreachableSize(p))
	packet.PutUnreachable(b[headroom:], p, packet.Prohibited)
	_, _ = d.Device.Write([][]byte{b}, headroom) // a device that is gone says so in Read
}
