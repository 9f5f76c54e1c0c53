package remote

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/tunfd"
)

type device = tunfd.Device

// openDevice takes a copy of the file, which stays its caller's.
func openDevice(file *os.File, mtu int) (*device, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dupErr); err != nil {
		return nil, err
	}
	return tunfd.Open(fd, mtu)
}
