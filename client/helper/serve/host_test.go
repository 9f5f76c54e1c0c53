//go:build linux || darwin

package serve_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

// host notes what is done to it.
type host struct {
	mu   sync.Mutex
	did  []string
	open int
	pipe *os.File // what is written to the interface
	warn func(string)
	fail error
}

func (h *host) note(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.did = append(h.did, fmt.Sprintf(format, args...))
	return h.fail
}

func (h *host) notes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.did)
}

func (h *host) Open(_ context.Context, warn func(string)) (helper.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open++
	h.warn = warn
	return h, nil
}

func (h *host) TUN(mtu int) (tun.Device, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.pipe = write
	h.mu.Unlock()
	return &device{file: read}, h.note("tun %d", mtu)
}

func (h *host) Networks() ([]router.Network, error) {
	return []router.Network{{Prefix: netip.MustParsePrefix("192.168.7.0/24"), Interface: "eth0"}}, nil
}
func (h *host) SetNetwork(want router.Config) error { return h.note("network %v", want) }
func (h *host) ListenDNS(ctx context.Context, addrs []netip.Addr) ([]net.PacketConn, []net.Listener, error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	return []net.PacketConn{p}, []net.Listener{l}, errors.Join(err, h.note("listen %v", addrs))
}
func (h *host) SetDNS(_ context.Context, want osdns.Config) error { return h.note("dns %v", want) }
func (h *host) DNS() ([]netip.AddrPort, string) {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, "direct"
}
func (h *host) LookUp(context.Context, string) []osdns.Way { return nil }
func (h *host) ResetFlows(_ context.Context, local []netip.Addr) (int, error) {
	return 3, h.note("reset %v", local)
}
func (h *host) WireGuard(mtu int) (string, *net.UDPConn, error) {
	w, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	return "podnet0", w, errors.Join(err, h.note("wireguard %d", mtu))
}
func (h *host) SetWireGuard(want helper.WireGuard) error {
	return h.note("device %s of %s to %s %v %v %v", want.PrivateKey, want.PrivateKey.Public(), want.Peer, want.AllowedIPs, want.Keepalive, want.Speak)
}
func (h *host) WireGuardState() (helper.WireGuardState, error) {
	return helper.WireGuardState{LastHandshake: handshake, RxBytes: 7, TxBytes: 9}, h.note("state")
}
func (h *host) Close() error {
	h.mu.Lock()
	h.open--
	h.mu.Unlock()
	return nil
}

// handshake is when the device of the kernel's had one.
var handshake = time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)

// packets is the end to write what the interface is to give.
func (h *host) packets() *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pipe
}

// warns tells the session's owner something.
func (h *host) warns(text string) {
	h.mu.Lock()
	warn := h.warn
	h.mu.Unlock()
	warn(text)
}

func (h *host) sessions() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// device is a pipe.
type device struct {
	tun.Device
	file *os.File
}

func (d *device) Name() (string, error) { return "podnet0", nil }
func (d *device) File() *os.File        { return d.file }
func (d *device) Close() error          { return d.file.Close() }
