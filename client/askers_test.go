package client

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOnlyThisMachineMayAsk(t *testing.T) {
	a := askers{
		own:    []netip.Addr{netip.MustParseAddr("198.18.0.4"), netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("fe80::1")},
		inside: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
		looked: time.Now().Add(time.Hour), // never again
	}
	for text, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.53": true, "::1": true, // this machine
		"198.18.0.4": true, "192.168.1.7": true, "fe80::1%eth0": true,
		"172.17.0.9":   true,                                          // a container
		"192.168.1.66": false, "203.0.113.9": false, "fe80::2": false, // others on the LAN
	} {
		if got := a.allow(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// A bridge with a cable in it is the LAN, whatever else is plugged in.
func TestBridgesThatEndHere(t *testing.T) {
	sysfs := t.TempDir()
	for _, dir := range []string{
		"eth0/device", "veth1", "vnet0",
		"docker0/bridge", "docker0/brif/veth1",
		"br0/bridge", "br0/brif/eth0", "br0/brif/vnet0",
		"virbr0/bridge", "virbr0/brif",
	} {
		if err := os.MkdirAll(filepath.Join(sysfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, want := range map[string]bool{"eth0": false, "veth1": false, "docker0": true, "br0": false, "virbr0": true, "nothere": false} {
		if got := endsHere(sysfs, link); got != want {
			t.Errorf("%s: %v, want %v", link, got, want)
		}
	}
}
