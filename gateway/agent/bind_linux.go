package agent

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is room for the size that a train's datagrams have.
var controlSize = unix.CmsgSpace(4)

// allowTrains has the kernel put datagrams together that come, and reports whether
// it cuts up what is sent.
func allowTrains(c *net.UDPConn) (cuts bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		cuts = err == nil
	})
	return cuts && err == nil
}

// trainSize is the size of datagrams that the kernel has put together; 0: it has
// not.
func trainSize(control []byte) int {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		switch {
		case err != nil:
			return 0
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			return int(*(*int32)(unsafe.Pointer(&data[0])))
		}
		control = rest
	}
	return 0
}

// trainControl tells the kernel to cut a train up.
func trainControl(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = uint16(size)
	return b
}

// refusesTrains reports whether the kernel or the link cannot cut up: there is no
// checksum offload, or the datagrams are larger than the way's MTU.
func refusesTrains(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}
