//go:build unix

package tunsplit

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// filed is a device that is a file, as the host's are: one packet a read.
type filed struct {
	file   *os.File
	events chan tun.Event
	once   sync.Once
}

func (f *filed) File() *os.File           { return f.file }
func (f *filed) Name() (string, error)    { return "filed", nil }
func (f *filed) MTU() (int, error)        { return 1420, nil }
func (f *filed) Events() <-chan tun.Event { return f.events }
func (f *filed) BatchSize() int           { return 1 }

func (f *filed) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := f.file.Read(bufs[0][offset:])
	if err != nil {
		return 0, err
	}
	sizes[0] = n
	return 1, nil
}

func (f *filed) Write(bufs [][]byte, offset int) (int, error) {
	for i, b := range bufs {
		if _, err := f.file.Write(b[offset:]); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

func (f *filed) Close() (err error) {
	f.once.Do(func() {
		err = f.file.Close()
		close(f.events)
	})
	return err
}

// newFiled is one of the outers.
func newFiled(t testing.TB) (dev tun.Device, send func([]byte), got func() []byte) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*os.File
	for i, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		ends[i] = os.NewFile(uintptr(fd), "device")
	}
	t.Cleanup(func() { ends[1].Close() })
	send = func(p []byte) {
		if _, err := ends[1].Write(p); err != nil {
			t.Error(err)
		}
	}
	got = func() []byte {
		b := make([]byte, 65535)
		n, err := ends[1].Read(b)
		if err != nil {
			t.Error(err)
		}
		return b[:n]
	}
	return &filed{file: ends[0], events: make(chan tun.Event)}, send, got
}
