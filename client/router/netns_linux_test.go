package router

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// inNetns runs the rest of the test in a fresh network namespace, which goes
// with the test's thread.
func inNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	ip(t, "link", "set", "lo", "up")
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func snapshot(t *testing.T) string {
	t.Helper()
	return ip(t, "-4", "route", "show", "table", "all") + ip(t, "-6", "route", "show", "table", "all") + ip(t, "-br", "addr")
}

// TestKernelAgrees sets, sets again, sets otherwise and removes, and looks with
// the tools that people use.
func TestKernelAgrees(t *testing.T) {
	inNetns(t)
	ip(t, "link", "add", "home0", "type", "veth", "peer", "name", "home1")
	ip(t, "addr", "add", "192.168.1.20/24", "dev", "home0")
	ip(t, "link", "set", "home0", "up")
	before := snapshot(t)
	dev, err := tun.CreateTUN("podnet0", 1420)
	if err != nil {
		t.Skipf("no TUN device: %v", err)
	}
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Interface: "podnet0", MTU: 16384, Addresses: prefixes("198.18.0.5/32 fd70:6f64:6e65:7400::5/128"),
		Routes: prefixes("10.96.0.0/16 fd70:6f64:6e65:7400::/64 198.18.0.1/32"), Avoid: addrs("10.96.255.255")}
	for range 2 {
		if err := r.Set(want); err != nil {
			t.Fatal(err)
		}
	}
	have, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if ops, err := Plan(have, want); err != nil || len(ops) != 0 {
		t.Errorf("the kernel has not got it: %v, %v", text(ops), err)
	}
	for dst, via := range map[string]string{"10.96.0.1": "podnet0", "198.18.0.1": "podnet0", "fd70:6f64:6e65:7400::1": "podnet0", "192.168.1.1": "home0"} {
		if got := ip(t, "route", "get", dst); !strings.Contains(got, "dev "+via) {
			t.Errorf("%s goes by %s", dst, got)
		}
	}
	if _, err := exec.Command("ip", "route", "get", "10.96.255.255").Output(); err == nil {
		t.Error("the avoided address is routed")
	}
	if got := ip(t, "link", "show", "podnet0"); !strings.Contains(got, "mtu 16384") {
		t.Errorf("MTU: %s", got)
	}

	// A collision changes nothing at all.
	was := snapshot(t)
	clash := want
	clash.Routes = prefixes("10.97.0.0/16 192.168.0.0/16")
	var conflict *ConflictError
	if err := r.Set(clash); !errors.As(err, &conflict) || conflict.Interface != "home0" {
		t.Errorf("got %v, want a conflict with home0", err)
	}
	if got := snapshot(t); got != was {
		t.Errorf("a refused wish changed the host:\n%s\nwas\n%s", got, was)
	}
	if err := r.Set(Config{Interface: "podnet0"}); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, "route", "show", "dev", "podnet0"); got != "" {
		t.Errorf("routes left: %s", got)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t); got != before {
		t.Errorf("after:\n%s\nbefore:\n%s", got, before)
	}
}

// TestAddressesMove: a session that enrols again has new addresses, and both for
// a moment. The routes stay throughout.
func TestAddressesMove(t *testing.T) {
	inNetns(t)
	dev, err := tun.CreateTUN("podnet0", 1420)
	if err != nil {
		t.Skipf("no TUN device: %v", err)
	}
	defer dev.Close()
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := "198.18.0.5/32 fd70:6f64:6e65:7400::5/128", "198.18.0.6/32 fd70:6f64:6e65:7400::6/128"
	for _, step := range []struct{ addresses, from string }{{old, "198.18.0.5"}, {old + " " + fresh, ""}, {fresh, "198.18.0.6"}} {
		if err := r.Set(Config{Interface: "podnet0", Addresses: prefixes(step.addresses), Routes: prefixes("10.96.0.0/16 fd70:6f64:6e65:7400::/64")}); err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{"10.96.0.1", "fd70:6f64:6e65:7400::1"} {
			if got := ip(t, "route", "get", dst); !strings.Contains(got, "dev podnet0") {
				t.Errorf("with %s, %s goes by %s", step.addresses, dst, got)
			}
		}
		if got := ip(t, "route", "get", "10.96.0.1"); !strings.Contains(got, "src "+step.from) {
			t.Errorf("with %s, packets are %s", step.addresses, got)
		}
	}
	// Somebody flushes what is ours; the same wish brings it back.
	ip(t, "route", "flush", "dev", "podnet0")
	if err := r.Set(Config{Interface: "podnet0", Addresses: prefixes(fresh), Routes: prefixes("10.96.0.0/16 fd70:6f64:6e65:7400::/64")}); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, "route", "get", "10.96.0.1"); !strings.Contains(got, "dev podnet0") {
		t.Errorf("after a flush: %s", got)
	}
}
