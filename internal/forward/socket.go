package forward

import (
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendBatch    = 64
	receiveBatch = 32
	// messageRoom is the largest datagram. Slots that never saw one that large
	// cost only the pages that were written.
	messageRoom = 1 << 16
	// socketBuffer absorbs bursts while the tunnel holds the reader back.
	socketBuffer = 1 << 20
)

// openSocket makes an unprivileged socket connected to the target: UDP, or
// the kernel's ping socket (icmp(7)), which the kernel gives to groups within
// net.ipv4.ping_group_range. The network's errors are queued on it.
func openSocket(proto Proto, to netip.AddrPort) (*os.File, syscall.RawConn, error) {
	family, sa := sockaddr(to)
	ip := unix.IPPROTO_UDP
	if proto == ICMP {
		if ip = unix.IPPROTO_ICMP; family == unix.AF_INET6 {
			ip = unix.IPPROTO_ICMPV6
		}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, ip)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	} else {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	if proto == UDP {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("connect", err)
	}
	file := os.NewFile(uintptr(fd), proto.String())
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, raw, nil
}

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// mmsghdr is the kernel's struct of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// sender collects datagrams of one flow for one sendmmsg.
type sender struct {
	hdrs   [sendBatch]mmsghdr
	iovs   [sendBatch]unix.Iovec
	n      int
	bytes  int
	turn   func(fd uintptr) bool
	failed bool
}

var senders = sync.Pool{New: func() any {
	s := new(sender)
	for i := range s.hdrs {
		s.hdrs[i].hdr.Iov = &s.iovs[i]
		s.hdrs[i].hdr.SetIovlen(1)
	}
	s.turn = s.write
	return s
}}

func (s *sender) full() bool { return s.n == sendBatch }

// add queues b, which must stay as it is until send.
func (s *sender) add(b []byte) {
	s.iovs[s.n].Base = unsafe.SliceData(b)
	s.iovs[s.n].SetLen(len(b))
	s.n++
	s.bytes += len(b)
}

// hand gives each datagram to take instead of a socket, which must not keep it.
func (s *sender) hand(take func([]byte)) {
	for i := range s.n {
		take(unsafe.Slice(s.iovs[i].Base, s.iovs[i].Len))
	}
	s.clear()
}

// send reports whether the socket had an error queued.
func (s *sender) send(raw syscall.RawConn) (failed bool) {
	s.failed = false
	raw.Write(s.turn)
	s.clear()
	return s.failed
}

func (s *sender) clear() {
	for i := range s.n {
		s.iovs[i].Base = nil
	}
	s.n, s.bytes = 0, 0
}

// write never waits. A datagram that fails, for want of room or because an
// earlier one was refused, does not hold up those behind it.
func (s *sender) write(fd uintptr) bool {
	again := true
	for at := 0; at < s.n; {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.hdrs[at])), uintptr(s.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			at += int(n)
			again = true
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return true
		case again: // an error of an earlier datagram, reported once: not about this one
			again, s.failed = false, true
		default:
			at++
			again = true
		}
	}
	return true
}

// receiver holds what one recvmmsg returned.
type receiver struct {
	hdrs [receiveBatch]mmsghdr
	iovs [receiveBatch]unix.Iovec
	room []byte
	n    int
}

var receivers = sync.Pool{New: func() any {
	r := &receiver{room: make([]byte, receiveBatch*messageRoom)}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.room[i*messageRoom]
		r.iovs[i].SetLen(messageRoom)
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
	}
	return r
}}

func (r *receiver) message(i int) []byte {
	return r.room[i*messageRoom:][:r.hdrs[i].n]
}

// awaitBatch waits until the socket has datagrams or an error for us and
// returns them; nil when the socket was closed. The memory is taken only when
// there is something to put into it: thousands of flows wait here.
func awaitBatch(raw syscall.RawConn) (r *receiver, err error) {
	rerr := raw.Read(func(fd uintptr) bool {
		if r == nil {
			r = receivers.Get().(*receiver)
		}
		for {
			n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				r.n = int(n)
				return true
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				receivers.Put(r)
				r = nil
				return false
			}
			r.n, err = 0, errno
			return true
		}
	})
	if rerr != nil {
		return nil, rerr
	}
	return r, err
}

// drainErrors reads the socket's error queue (IP_RECVERR in ip(7)): what the
// network said about a datagram, and the datagram.
func drainErrors(raw syscall.RawConn, each func(err syscall.Errno, sent []byte)) {
	raw.Control(func(fd uintptr) {
		var payload [576]byte
		var oob [512]byte
		for {
			n, oobn, _, _, err := unix.Recvmsg(int(fd), payload[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if e, ok := extendedError(oob[:oobn]); ok {
				each(e, payload[:n])
			}
		}
	})
}

// extendedError finds the error number of a struct sock_extended_err.
func extendedError(oob []byte) (syscall.Errno, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
			return syscall.Errno(e.Errno), true
		}
	}
	return 0, false
}
