package transport

import (
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/resident"
	"podnet.dev/internal/transport/fragment"
)

// mmsghdr is the kernel's struct of recvmmsg(2) and sendmmsg(2). The compiler
// pads it as the C compiler does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// sockaddr has room for an IPv4 or an IPv6 address; which, its family says.
type sockaddr unix.RawSockaddrInet6

// controlSize is room for UDP_GRO's or UDP_SEGMENT's segment size and for an
// IPv6 (the larger) packet info.
var controlSize = unix.CmsgSpace(4) + unix.CmsgSpace(unix.SizeofInet6Pktinfo)

const (
	// rxSlots of slotSize: a datagram that the kernel has coalesced may be
	// 64 KiB, and most are not coalesced where a pod's veth does not segment.
	// The slots are virtual memory; only what a burst touches becomes real.
	rxSlots  = 64
	slotSize = 64 << 10
)

// receiver reads up to rxSlots datagrams per system call, each of up to 64
// coalesced ones, and keeps what the device's buffers could not take.
type receiver struct {
	u     *udpSocket
	mem   []byte
	slots [][]byte // mem, as Lend takes it
	msgs  [rxSlots]mmsghdr
	iovs  [rxSlots]unix.Iovec
	names [rxSlots]sockaddr
	ctls  []byte // rxSlots of controlSize

	got   int // messages of the last call
	at    int // the one being given out
	off   int // how far in it
	seg   int // size of its segments
	last  sockaddr
	key   originKey // of last, the message's sender
	from  origin    // of key, if known
	known bool
	epoch uint64 // when that was so
	cache originCache
	asm   fragment.Assembler

	call  func(fd uintptr) bool
	errno syscall.Errno

	bufs   [][]byte // of the device, for the datagrams of this fill
	parked bool     // bufs and mem are lent
	// of bufs and of mem
	spareBufs, spareMem *resident.Spare
}

func newReceiver(u *udpSocket) (*receiver, error) {
	mem, err := unix.Mmap(-1, 0, rxSlots*slotSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // one touched byte is to cost a page, not 2 MiB
	r := &receiver{u: u, mem: mem, slots: [][]byte{mem}, ctls: make([]byte, rxSlots*controlSize),
		spareBufs: resident.NewSpare(), spareMem: resident.NewSpare()}
	r.call = r.recvmmsg
	return r, nil
}

func (r *receiver) free() { unix.Munmap(r.mem) }

// park lends what nothing is read into while no datagram comes.
func (r *receiver) park() {
	r.parked = true
	r.spareBufs.Lend(r.bufs)
	r.spareMem.Lend(r.slots)
}

func (r *receiver) unpark() {
	if r.parked {
		r.parked = false
		r.spareBufs.Take()
		r.spareMem.Take()
	}
}

// fill waits for datagrams, which bufs are for.
func (r *receiver) fill(bufs [][]byte) error {
	for i := range r.msgs {
		r.iovs[i].Base = &r.mem[i*slotSize]
		r.iovs[i].SetLen(slotSize)
		h := &r.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.ctls[i*controlSize]
		h.SetControllen(controlSize)
	}
	r.got, r.at, r.errno = 0, 0, 0
	r.bufs = bufs
	err := r.u.rc.Read(r.call)
	r.unpark() // of one that was closed while it waited
	r.bufs = nil
	if err != nil {
		return net.ErrClosed // the only reason for which Read fails without a deadline
	}
	if r.errno != 0 {
		// The host is short of something. The device would give up its
		// receiver for such an error, and for good.
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	r.open()
	return nil
}

func (r *receiver) recvmmsg(fd uintptr) bool {
	r.unpark()
	for {
		n, _, e := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), rxSlots, unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.got = int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			r.park()
			return false
		default:
			r.errno = e
			return true
		}
	}
}

// open looks at message r.at, if there is one: its segments and its sender.
func (r *receiver) open() {
	if r.at >= r.got {
		return
	}
	r.off = 0
	msg := &r.msgs[r.at]
	seg, to := parseControl(r.ctls[r.at*controlSize:][:msg.hdr.Controllen])
	r.seg = seg
	if seg == 0 {
		r.seg = int(msg.n)
	}
	if name := &r.names[r.at]; r.last != *name || r.key.to != to || !r.key.from.IsValid() {
		r.last, r.key, r.known = *name, originKey{from: name.addrPort(), to: to}, false
	}
	if r.known && (r.epoch != r.u.b.epoch.Load() || spent(r.from.ep)) {
		r.known = false
	}
}

// sender is the origin of the message. Strangers' garbage never asks for it.
func (r *receiver) sender() *origin {
	if !r.known {
		r.epoch = r.u.b.epoch.Load()
		r.from, r.known = r.cache.lookup(r.u.b, r.key), true
	}
	return &r.from
}

// spent reports whether the device has disowned the endpoint's source address.
func spent(ep conn.Endpoint) bool {
	u, ok := ep.(*udpEndpoint)
	return ok && u.noSrc.Load()
}

// drain gives out what fill has read, as much as fits, and drops what nobody
// wants. It returns 0 when nothing is left.
func (r *receiver) drain(bufs [][]byte, sizes []int, eps []conn.Endpoint) int {
	n := 0
	for r.at < r.got && n < len(bufs) {
		total := int(r.msgs[r.at].n)
		end := min(r.off+r.seg, total)
		m := r.mem[r.at*slotSize:][r.off:end]
		r.off = end
		if m = r.datagram(m); m != nil && len(m) <= len(bufs[n]) {
			sizes[n], eps[n] = copy(bufs[n], m), r.from.ep
			n++
		}
		if r.off >= total {
			r.at++
			r.open()
		}
	}
	return n
}

// datagram is what the device is to see of m: m itself, the datagram of which m
// was the last piece, or nil.
func (r *receiver) datagram(m []byte) []byte {
	if isWireGuard(m) {
		from := r.sender()
		if from.drop {
			return nil
		}
		from.count(len(m))
		if m[0] != msgTransport {
			r.u.b.heedHandshake(from.ep, m)
		}
		return m
	}
	if !r.u.b.heedUDP(r.key, m) {
		return nil
	}
	from := r.sender()
	if !from.pieces {
		return nil
	}
	from.count(len(m))
	if m = r.asm.Add(time.Now(), r.key.from, m); !isWireGuard(m) {
		return nil
	}
	return m
}

// parseControl reads the segment size (0: not coalesced) and the local address
// out of a received datagram's control messages.
func parseControl(b []byte) (seg int, to netip.Addr) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		if int(h.Len) < unix.CmsgLen(0) || int(h.Len) > len(b) {
			return seg, to
		}
		data := b[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			seg = int(*(*int32)(unsafe.Pointer(&data[0])))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			to = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			to = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		}
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]
	}
	return seg, to
}

func (s *sockaddr) addrPort() netip.AddrPort {
	p := (*[2]byte)(unsafe.Pointer(&s.Port))
	port := uint16(p[0])<<8 | uint16(p[1])
	if s.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	a := netip.AddrFrom16(s.Addr)
	if s.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(strconv.FormatUint(uint64(s.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}

// set writes ap and returns the length that its family takes.
func (s *sockaddr) set(ap netip.AddrPort) uint32 {
	*s = sockaddr{}
	p := (*[2]byte)(unsafe.Pointer(&s.Port))
	p[0], p[1] = byte(ap.Port()>>8), byte(ap.Port())
	if ap.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s))
		v4.Family, v4.Addr = unix.AF_INET, ap.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	s.Family, s.Addr, s.Scope_id = unix.AF_INET6, ap.Addr().As16(), zoneIndex(ap.Addr())
	return unix.SizeofSockaddrInet6
}

const (
	// gsoBytes bounds one segmented send. gso_max_size is 65536 and counts the
	// headers, the link's too. A byte above and the kernel segments in
	// software, and a receiver on the same host gets single datagrams:
	// downloads halve. So: the largest payload less the headers of Ethernet, IPv6 and UDP.
	gsoBytes = 65535 - 14 - 40 - 8
	// gsoSegments is the kernel's UDP_MAX_SEGMENTS before Linux 6.9.
	gsoSegments = 64
)

// segmentRun is how many of the datagrams at the front of bufs may go out as one
// send: of the first one's size, but for a smaller last.
func segmentRun(bufs [][]byte) int {
	size, total, n := len(bufs[0]), 0, 0
	for _, m := range bufs[:min(len(bufs), gsoSegments)] {
		if len(m) > size || len(m) == 0 || total+len(m) > gsoBytes {
			break
		}
		total += len(m)
		n++
		if len(m) < size {
			break
		}
	}
	return max(n, 1)
}

const (
	txMessages = 64
	txBuffers  = conn.IdealBatchSize
)

// sender is the state of one sendmmsg.
type sender struct {
	name  sockaddr
	msgs  [txMessages]mmsghdr
	iovs  [txBuffers]unix.Iovec
	ctls  []byte              // txMessages of controlSize
	first [txMessages + 1]int // index of each message's first datagram

	n, sent int // messages built, and taken by the kernel
	errno   syscall.Errno
	hasty   bool // errno is EAGAIN rather than that the call waits
	call    func(fd uintptr) bool
}

var senders = sync.Pool{New: func() any {
	s := &sender{ctls: make([]byte, txMessages*controlSize)}
	s.call = s.sendmmsg
	return s
}}

// build lays out messages for as many of bufs as one call takes, and returns how
// many that are.
func (s *sender) build(bufs [][]byte, ep *udpEndpoint, gso bool) int {
	nameLen := s.name.set(ep.dst)
	src, limit := ep.SrcIP(), ep.gsoLimit.Load()
	i := 0
	for s.n, s.sent = 0, 0; s.n < txMessages && i < len(bufs) && i < txBuffers; s.n++ {
		run := 1
		if gso && (limit == 0 || uint32(len(bufs[i])) < limit) {
			run = segmentRun(bufs[i:min(len(bufs), txBuffers)])
		}
		s.first[s.n] = i
		for k := range run {
			m := bufs[i+k]
			s.iovs[i+k].Base = unsafe.SliceData(m)
			s.iovs[i+k].SetLen(len(m))
		}
		h := &s.msgs[s.n].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.name)), nameLen
		h.Iov = &s.iovs[i]
		h.SetIovlen(run)
		ctl := s.ctls[s.n*controlSize:][:controlSize]
		used := 0
		if src.IsValid() {
			used = putSource(ctl, src)
		}
		if run > 1 {
			used += putCmsg(ctl[used:], unix.SOL_UDP, unix.UDP_SEGMENT, uint16(len(bufs[i])))
		}
		h.Control = nil
		if used > 0 {
			h.Control = &ctl[0]
		}
		h.SetControllen(used)
		i += run
	}
	s.first[s.n] = i
	return i
}

// segments is how many datagrams message i holds.
func (s *sender) segments(i int) int { return s.first[i+1] - s.first[i] }

// flush sends what build has laid out. When the kernel refuses a message, sent
// is its index and errno the reason. An err is the socket's end.
func (s *sender) flush(rc syscall.RawConn) (sent int, errno syscall.Errno, err error) {
	s.errno = 0
	for s.sent < s.n && s.errno == 0 {
		if err := rc.Write(s.call); err != nil {
			return s.sent, 0, net.ErrClosed
		}
	}
	return s.sent, s.errno, nil
}

func (s *sender) sendmmsg(fd uintptr) bool {
	for {
		n, _, e := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.msgs[s.sent])), uintptr(s.n-s.sent), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			s.sent += int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			if s.hasty {
				s.errno = e
			}
			return s.hasty
		default:
			s.errno = e
			return true
		}
	}
}

// forget drops the references to the device's buffers.
func (s *sender) forget() {
	clear(s.iovs[:])
	runtime.KeepAlive(s)
}

func putSource(b []byte, src netip.Addr) int {
	if src.Is4() {
		return putCmsg(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.Inet4Pktinfo{Spec_dst: src.As4()})
	}
	return putCmsg(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.Inet6Pktinfo{Addr: src.As16()})
}

// putCmsg writes a control message and returns the space it takes.
func putCmsg[T any](b []byte, level, kind int32, v T) int {
	size := int(unsafe.Sizeof(v))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	*(*T)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = v
	return unix.CmsgSpace(size)
}
