package serve

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	sockDiagByFamily = 20      // of linux/sock_diag.h
	listenState      = 1 << 10 // TCP_LISTEN of linux/tcp_states.h, as a set
	requestSize      = 56      // of struct inet_diag_req_v2
	answerSize       = 72      // of struct inet_diag_msg, in which the port is at 4
)

// ask adds the ports of listeners by sock_diag(7): the kernel looks at nothing else for
// it. For a file of proc(5) it goes over its table of all connections of the machine, which
// takes some milliseconds, each second.
func (s portSet) ask() error {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, requestSize)
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], listenState)
		answers, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request,
		})
		if err != nil {
			return err // a kernel without tcp_diag: ENOENT
		}
		for _, a := range answers {
			if len(a.Data) >= answerSize {
				s[binary.BigEndian.Uint16(a.Data[4:])] = true
			}
		}
	}
	return nil
}
