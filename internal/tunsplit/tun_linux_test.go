package tunsplit

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
)

// realTUN makes a device of the kernel in a fresh network namespace, which goes
// with the test's thread, and a socket that sends into it.
func realTUN(t testing.TB) (tun.Device, net.Conn) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	dev, err := tun.CreateTUN("podnet0", 1420)
	if err != nil {
		t.Skipf("no TUN device: %v", err)
	}
	for _, args := range []string{"link set podnet0 addrgenmode none", "addr add 198.18.0.5/24 dev podnet0", "link set podnet0 up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	sock, err := net.Dial("udp4", "198.18.0.9:4000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	return dev, sock
}

// TestKernelDevice reads and writes a TUN of Linux, whose reader is called away.
func TestKernelDevice(t *testing.T) {
	outer, sock := realTUN(t)
	inner := newFake()
	d := New(outer, inner, hers)
	if name, err := d.Name(); err != nil || name != "podnet0" {
		t.Errorf("name %q, %v", name, err)
	}
	got := make(chan []byte)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(got)
		bufs, sizes := room(d.BatchSize())
		for {
			n, err := d.Read(bufs, sizes, offset)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				return
			}
			for i := range n {
				got <- bytes.Clone(bufs[i][offset : offset+sizes[i]])
			}
		}
	})
	next := func() []byte {
		select {
		case p := <-got:
			return p
		case <-time.After(10 * time.Second):
			t.Error("nothing to read in 10 s")
			return nil
		}
	}
	for i := range 100 {
		inner.send <- packetTo(hers, i, 100)
		if p := next(); len(p) != 140 || number(p) != i {
			t.Fatalf("the inner's packet %d is % x", i, p)
		}
		if _, err := sock.Write([]byte("from the host")); err != nil {
			t.Fatal(err)
		}
		if p := next(); !bytes.HasSuffix(p, []byte("from the host")) {
			t.Fatalf("the host's packet is % x", p)
		}
	}
	// And back: to the host.
	answer := make([]byte, offset+packet.HeaderIP(netip.IPv4Unspecified())+packet.HeaderUDP+5)
	copy(answer[len(answer)-5:], "hello")
	from := sock.LocalAddr().(*net.UDPAddr).AddrPort()
	packet.PutUDP(answer[offset:], netip.MustParseAddrPort("198.18.0.9:4000"), from)
	if _, err := d.Write([][]byte{answer}, offset); err != nil {
		t.Fatal(err)
	}
	_ = sock.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 10)
	if n, err := sock.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("the host got %q, %v", b[:n], err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	reader.Wait()
}

// unfiled is a device that seems to be no file.
type unfiled struct{ tun.Device }

func (unfiled) File() *os.File { return nil }

// BenchmarkRead sends a datagram from the host and reads it from the device.
func BenchmarkRead(b *testing.B) {
	for _, kind := range []string{"plain", "direct", "lane"} {
		b.Run(kind, func(b *testing.B) {
			dev, sock := realTUN(b)
			switch kind {
			case "direct":
				dev = New(dev, newFake(), hers)
			case "lane":
				dev = New(unfiled{dev}, newFake(), hers)
			}
			defer dev.Close()
			bufs, sizes := room(dev.BatchSize())
			datagram := make([]byte, 1200)
			for b.Loop() {
				if _, err := sock.Write(datagram); err != nil {
					b.Fatal(err)
				}
				if n, err := dev.Read(bufs, sizes, offset); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// nowhere is a device that takes everything.
type nowhere struct{ *fake }

func (nowhere) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }

// BenchmarkWrite is what sorting alone costs for a batch of 64 packets.
func BenchmarkWrite(b *testing.B) {
	for _, kind := range []string{"plain", "split"} {
		b.Run(kind, func(b *testing.B) {
			var dev tun.Device = nowhere{newFake()}
			if kind == "split" {
				dev = New(dev, newFake(), hers)
			}
			defer dev.Close()
			bufs := make([][]byte, 64)
			for i := range bufs {
				bufs[i] = append(make([]byte, offset), packetTo(host, i, 1300)...)
			}
			for b.Loop() {
				_, _ = dev.Write(bufs, offset)
			}
		})
	}
}
