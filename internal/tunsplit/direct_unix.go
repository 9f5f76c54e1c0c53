//go:build unix

package tunsplit

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// grace bounds a Read of an outer device that says it is readable.
const grace = time.Millisecond

// direct reads the outer device in the goroutine of its caller until called
// away.
type direct struct {
	outer tun.Device
	file  *os.File
	raw   syscall.RawConn
	in    *lane

	// away is true from a call until the inner's batch is taken; while it is,
	// the file's read deadline has passed. mu is for its changes.
	away atomic.Bool
	mu   sync.Mutex
	// owed says that the last batch was the inner's. Only the reader uses it.
	owed bool
}

// newDirect returns nil for a device whose Read cannot be broken off.
func newDirect(outer tun.Device) *direct {
	file := outer.File()
	if file == nil || file.SetReadDeadline(time.Time{}) != nil {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil
	}
	return &direct{outer: outer, file: file, raw: raw}
}

// call calls the reader away: the inner device has a batch.
func (d *direct) call() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away.Store(true)
	_ = d.file.SetReadDeadline(time.Unix(1, 0)) // fails once the device is closed
}

// back lets the reader return to the outer device.
func (d *direct) back() {
	d.away.Store(false)
	_ = d.file.SetReadDeadline(time.Time{})
}

func (d *direct) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		if d.away.Load() {
			if n, err, ok := d.readAway(bufs, sizes, offset); ok {
				return n, err
			}
		}
		n, err := d.outer.Read(bufs, sizes, offset)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			d.owed = false
			return n, err
		}
	}
}

// readAway reads while the inner device has something: in turns with the outer,
// if that has something as well. It reports false when there was nothing.
func (d *direct) readAway(bufs [][]byte, sizes []int, offset int) (n int, err error, ok bool) {
	if d.owed && d.readable() {
		_ = d.file.SetReadDeadline(time.Now().Add(grace))
		n, err = d.outer.Read(bufs, sizes, offset)
		_ = d.file.SetReadDeadline(time.Unix(1, 0))
		d.owed = false
		if n > 0 || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err, true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The inner's end is not ours.
	n, more, _ := d.in.take(bufs, sizes, offset)
	if !more {
		d.back()
	}
	d.owed = n > 0
	return n, nil, n > 0
}

// readable says that the outer device has a packet.
func (d *direct) readable() (yes bool) {
	_ = d.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		yes = n > 0 && err == nil
	})
	return yes
}
