package router

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// echo sends each packet of UDP back to where it is from, and counts. Swapping
// source and destination leaves every checksum right.
func echo(dev tun.Device, count *atomic.Int64) {
	const offset = 16
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, offset+2048)
	}
	swap := func(a, b []byte) {
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		for i := range n {
			p := bufs[i][offset : offset+sizes[i]]
			var udp []byte
			switch {
			case p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP:
				swap(p[12:16], p[16:20])
				udp = p[20:]
			case p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP:
				swap(p[8:24], p[24:40])
				udp = p[40:]
			default:
				continue
			}
			swap(udp[0:2], udp[2:4])
			count.Add(1)
			_, _ = dev.Write([][]byte{bufs[i][:offset+len(p)]}, offset)
		}
	}
}

// TestTwoTunnelsShareTheGatewaysAddresses: each session's questions go by its own
// device, with the strict filter that some distributions set, and one goes on
// when the other has gone.
func TestTwoTunnelsShareTheGatewaysAddresses(t *testing.T) {
	inNetns(t)
	for _, dev := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/rp_filter", []byte("1"), 0); err != nil {
			t.Skipf("no sysctl: %v", err)
		}
	}
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	var devs [2]tun.Device
	var got [2]atomic.Int64
	wants := [2]Config{
		{Interface: "podnet0", Addresses: prefixes("198.18.0.5/32 fd70:6f64:6e65:7400::5/128"), Routes: prefixes("10.96.0.0/16")},
		{Interface: "podnet1", Addresses: prefixes("198.18.0.6/32 fd70:6f64:6e65:7400::6/128"), Routes: prefixes("10.97.0.0/16")},
	}
	for i := range devs {
		dev, err := tun.CreateTUN(wants[i].Interface, 1420)
		if err != nil {
			t.Skipf("no TUN device: %v", err)
		}
		devs[i] = dev
		done := make(chan struct{})
		go func() { defer close(done); echo(dev, &got[i]) }()
		t.Cleanup(func() { _ = dev.Close(); <-done })
		wants[i].Shared = prefixes("198.18.0.1/32 fd70:6f64:6e65:7400::/64")
		for range 2 {
			if err := r.Set(wants[i]); err != nil {
				t.Fatal(err)
			}
		}
		have, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		if ops, err := Plan(have, wants[i]); err != nil || len(ops) != 0 {
			t.Errorf("the kernel has not got it: %v, %v", text(ops), err)
		}
	}
	ask := func(device, to string) string {
		t.Helper()
		d := net.Dialer{Timeout: time.Second, Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if device != "" {
				_ = c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
			}
			return err
		}}
		c, err := d.DialContext(context.Background(), "udp", netip.AddrPortFrom(netip.MustParseAddr(to), 53).String())
		if err != nil {
			t.Fatalf("%s by %s: %v", to, device, err)
		}
		defer c.Close()
		was := [2]int64{got[0].Load(), got[1].Load()}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write([]byte("who")); err != nil {
			t.Fatalf("%s by %s: %v", to, device, err)
		}
		if _, err := c.Read(make([]byte, 3)); err != nil {
			t.Errorf("%s by %s: %v", to, device, err)
		}
		for i := range was {
			if got[i].Load() > was[i] {
				return wants[i].Interface
			}
		}
		return "nobody"
	}
	for _, to := range []string{"198.18.0.1", "fd70:6f64:6e65:7400::1"} {
		for device, by := range map[string]string{"": "podnet0", "podnet0": "podnet0", "podnet1": "podnet1"} {
			if answered := ask(device, to); answered != by {
				t.Errorf("%s, bound to %q, was answered by %s", to, device, answered)
			}
		}
	}

	// The first enrols again, and then ends: the second hears nothing of it.
	second := ip(t, "route", "show", "dev", "podnet1") + ip(t, "-6", "route", "show", "dev", "podnet1")
	wants[0].Addresses = prefixes("198.18.0.7/32 fd70:6f64:6e65:7400::7/128")
	if err := r.Set(wants[0]); err != nil {
		t.Fatal(err)
	}
	if err := r.Set(Config{Interface: "podnet0"}); err != nil {
		t.Fatal(err)
	}
	if left := ip(t, "route", "show", "dev", "podnet0"); left != "" {
		t.Errorf("routes left: %s", left)
	}
	if now := ip(t, "route", "show", "dev", "podnet1") + ip(t, "-6", "route", "show", "dev", "podnet1"); now != second {
		t.Errorf("the second tunnel's routes are\n%s\nand were\n%s", now, second)
	}
	for _, to := range []string{"198.18.0.1", "fd70:6f64:6e65:7400::1"} {
		for _, device := range []string{"", "podnet1"} {
			if answered := ask(device, to); answered != "podnet1" {
				t.Errorf("%s, bound to %q, was answered by %s", to, device, answered)
			}
		}
	}
	for _, dev := range devs {
		_ = dev.Close()
	}
	if after := snapshot(t); strings.TrimSpace(after) != strings.TrimSpace(before) {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}
