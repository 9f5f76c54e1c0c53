package transport

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

func TestSegmentRun(t *testing.T) {
	sizes := func(ss ...int) (bufs [][]byte) {
		for _, s := range ss {
			bufs = append(bufs, make([]byte, s))
		}
		return bufs
	}
	same := func(n, size int) [][]byte {
		ss := make([]int, n)
		for i := range ss {
			ss[i] = size
		}
		return sizes(ss...)
	}
	for _, c := range []struct {
		name string
		bufs [][]byte
		want int
	}{
		{"one", sizes(1452), 1},
		{"equal", same(10, 1452), 10},
		{"smaller one ends it", sizes(1452, 1452, 100, 100), 3},
		{"larger one does not belong", sizes(100, 1452), 1},
		{"at most 64 segments", same(100, 32), 64},
		{"45 of MTU 1420 fit", same(100, 1452), 45},
		{"16 KiB datagrams", same(10, 16416), 3},
		{"larger than a run may be", same(2, 65500), 1},
		{"nothing to segment", sizes(0, 0), 1},
	} {
		if got := segmentRun(c.bufs); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// exchangeBatch sends batches of datagrams of the given sizes and wants them
// all, in order.
func exchangeBatch(t *testing.T, to netip.Addr, sizes ...int) (from *udpEndpoint) {
	t.Helper()
	a, b := NewBind(Options{}), NewBind(Options{})
	open(t, a)
	port, got := open(t, b)
	var bufs [][]byte
	for i, s := range sizes {
		bufs = append(bufs, message(s, byte(i)))
	}
	ep := a.newUDPEndpoint(netip.AddrPortFrom(to, port), netip.Addr{})
	if err := a.Send(bufs, ep); err != nil {
		t.Fatal(err)
	}
	for i := range bufs {
		if r := next(t, got); !bytes.Equal(r.m, bufs[i]) {
			t.Fatalf("datagram %d of %d bytes arrived with %d", i, len(bufs[i]), len(r.m))
		}
	}
	return ep
}

func TestBatchesArriveWhole(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	for _, to := range []netip.Addr{v4, v6} {
		exchangeBatch(t, to, 32)
		exchangeBatch(t, to, 1452, 1452, 1452, 1000, 1452, 32, 148-4, 1452)
		exchangeBatch(t, to, 16416, 16416, 16416, 16416, 100)
		var many []int
		for i := range 200 { // more than one system call takes
			many = append(many, 1000+i%3*10)
		}
		exchangeBatch(t, to, many...)
	}
}

// A host with several addresses answers from the one that was asked.
func TestAnswerComesFromTheAddressAsked(t *testing.T) {
	b := NewBind(Options{})
	port, got := open(t, b)
	asked := netip.AddrPortFrom(netip.MustParseAddr("127.3.2.1"), port)
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(asked)) // connected: hears only asked
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(message(100, 1)); err != nil {
		t.Fatal(err)
	}
	r := next(t, got)
	if r.ep.SrcIP() != asked.Addr() {
		t.Errorf("source of the endpoint is %v, want %v", r.ep.SrcIP(), asked.Addr())
	}
	if err := b.Send([][]byte{message(200, 2), message(200, 3)}, r.ep); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	for fill := range byte(2) {
		buf := make([]byte, 1000)
		n, err := c.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], message(200, 2+fill)) {
			t.Fatalf("answer of %d bytes, %v", n, err)
		}
	}
	// The device disowns a source when a handshake fails; the next datagram
	// makes a new endpoint, which has it again.
	r.ep.ClearSrc()
	if r.ep.SrcIP().IsValid() {
		t.Error("the source is still there")
	}
	if _, err := c.Write(message(100, 1)); err != nil {
		t.Fatal(err)
	}
	if again := next(t, got); again.ep == r.ep || again.ep.SrcIP() != asked.Addr() {
		t.Errorf("endpoint after the next datagram is %v", again.ep.SrcIP())
	}
}

// The address that a peer wrote to may be gone when we answer.
func TestLostSourceIsGivenUp(t *testing.T) {
	a, b := NewBind(Options{}), NewBind(Options{})
	open(t, a)
	port, got := open(t, b)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	ep := a.newUDPEndpoint(to, netip.MustParseAddr("192.0.2.77"))
	if err := a.Send([][]byte{message(100, 1), message(100, 2)}, ep); err != nil {
		t.Fatal(err)
	}
	next(t, got)
	next(t, got)
	if ep.SrcIP().IsValid() {
		t.Error("the lost source is still used")
	}
}

// inNetns runs f with its sockets in a network namespace that has a loopback
// and nothing else.
func inNetns(t *testing.T, mtu int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		// The thread dies with the goroutine, and the namespace with both.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp(mtu)
		}
		if err == nil {
			defer func() { done <- nil }()
			f()
			return
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skipf("needs a network namespace: %v", err)
	}
}

func loopbackUp(mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
		return fmt.Errorf("set MTU: %w", err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// Datagrams above the link's MTU cannot be segments of one send; they go out
// one by one, in fragments.
func TestBatchAboveTheMTU(t *testing.T) {
	inNetns(t, 1500, func() {
		ep := exchangeBatch(t, netip.MustParseAddr("127.0.0.1"), 3000, 3000, 3000, 1000, 1000, 1000)
		if ep.gsoLimit.Load() != 3000 {
			t.Errorf("segments refused from %d bytes on, want 3000", ep.gsoLimit.Load())
		}
	})
}

func TestHostWithoutIPv6(t *testing.T) {
	inNetns(t, 65536, func() {
		// /proc/sys/net is that of the thread which opens it.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
			t.Errorf("switch IPv6 off: %v", err)
		}
		if c, err := net.ListenPacket("udp6", "[::1]:0"); err == nil {
			c.Close()
			t.Error("IPv6 is still there")
		}
		exchangeBatch(t, netip.MustParseAddr("127.0.0.1"), 1000, 1000)
	})
}

func TestOpenTwiceAndPortInUse(t *testing.T) {
	a, b := NewBind(Options{}), NewBind(Options{})
	port, _ := open(t, a)
	if _, _, err := a.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("second Open: %v", err)
	}
	if _, _, err := b.Open(port); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Open of a port in use: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close after a failed Open: %v", err)
	}
	if err := b.Send([][]byte{message(32, 0)}, b.newUDPEndpoint(netip.MustParseAddrPort("127.0.0.1:9"), netip.Addr{})); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send on a closed Bind: %v", err)
	}
}

func TestMark(t *testing.T) {
	b := NewBind(Options{})
	open(t, b)
	err := b.SetMark(7)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_NET_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	s := b.udp.(*linuxSockets)
	s.v4.rc.Control(func(fd uintptr) {
		if m, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); m != 7 || err != nil {
			t.Errorf("mark is %d, %v", m, err)
		}
	})
}

func TestGarbageDatagramsAreNotShownToTheDevice(t *testing.T) {
	b := NewBind(Options{})
	port, got := open(t, b)
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 100 {
		c.Write(bytes.Repeat([]byte{byte(i)}, i*13))
	}
	c.Write(message(64, 1))
	if r := next(t, got); !bytes.Equal(r.m, message(64, 1)) {
		t.Errorf("the device was shown %x", r.m)
	}
}
