package serve

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	sockDiagByFamily = 20      // of linux/sock_diag.h
	listenState      = 1 << 10 // TCP_LISTEN of linux/tcp_states.h, as a set
	requestSize      = 56      // of struct inet_diag_req_v2
	answerSize       = 72      // of struct inet_diag_msg: the port is at 4, the address at 8
	onlyV6           = 11      // INET_DIAG_SKV6ONLY, of the attributes behind it
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
				s[binary.BigEndian.Uint16(a.Data[4:])] |= familiesOf(a.Data)
			}
		}
	}
	return nil
}

// familiesOf are those of a listener.
func familiesOf(answer []byte) families {
	at := netip.AddrFrom16([16]byte(answer[8:24]))
	switch {
	case answer[0] == unix.AF_INET, at.Is4In6():
		return inet4
	case !at.IsUnspecified():
		return inet6
	}
	attributes, _ := netlink.UnmarshalAttributes(answer[answerSize:]) // without any it is as IPv6 has it by itself
	for _, a := range attributes {
		if a.Type == onlyV6 && len(a.Data) > 0 && a.Data[0] != 0 {
			return inet6
		}
	}
	return inetBoth
}
