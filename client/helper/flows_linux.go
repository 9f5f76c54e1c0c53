package helper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of a TCP socket in which nobody waits for an answer, see the kernel's
// include/net/tcp_states.h.
const (
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
)

// ResetFlows destroys the TCP sockets that are bound to one of local, as "ss
// --kill" does: their owners get ECONNABORTED. Listeners stay, and so do the
// flows of this machine with itself.
func ResetFlows(local []netip.Addr) (int, error) {
	n := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOENT) {
			continue // IPv6 is compiled out
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return n, fmt.Errorf("list TCP sockets: %w", err)
		}
		for _, s := range sockets {
			if !doomed(s, local) {
				continue
			}
			switch err := destroy(s); {
			case err == nil:
				n++
			case errors.Is(err, unix.ENOENT): // it ended by itself
			case errors.Is(err, unix.EOPNOTSUPP):
				return n, fmt.Errorf("close TCP sockets: the kernel lacks INET_DIAG_DESTROY: %w", err)
			default:
				return n, fmt.Errorf("close a TCP socket of %v: %w", s.ID.Source, err)
			}
		}
	}
	return n, nil
}

func doomed(s *netlink.Socket, local []netip.Addr) bool {
	from, _ := netip.AddrFromSlice(s.ID.Source)
	to, _ := netip.AddrFromSlice(s.ID.Destination)
	return s.State != tcpListen && s.State != tcpTimeWait && s.State != tcpClose &&
		slices.Contains(local, from.Unmap()) && !slices.Contains(local, to.Unmap())
}

// destroy asks the kernel to abort this very socket. The library's own
// SocketDestroy knows no IPv6.
func destroy(s *netlink.Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(diagRequest{s})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// diagRequest is the kernel's struct inet_diag_req_v2.
type diagRequest struct{ *netlink.Socket }

const diagRequestSize = 56

func (diagRequest) Len() int { return diagRequestSize }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = r.Family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // whatever state it is in by now
	binary.BigEndian.PutUint16(b[8:], r.ID.SourcePort)
	binary.BigEndian.PutUint16(b[10:], r.ID.DestinationPort)
	src, dst := r.ID.Source, r.ID.Destination
	if r.Family == unix.AF_INET {
		src, dst = src.To4(), dst.To4()
	}
	copy(b[12:28], src)
	copy(b[28:44], dst)
	binary.NativeEndian.PutUint32(b[44:], r.ID.Interface)
	binary.NativeEndian.PutUint32(b[48:], r.ID.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.ID.Cookie[1])
	return b
}
