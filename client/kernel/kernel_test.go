package kernel

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/client/helper"
	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a kernel whose device is a socket.
type host struct {
	device *net.UDPConn

	mu    sync.Mutex
	told  []helper.WireGuard
	state helper.WireGuardState
	fail  error
}

func (h *host) WireGuard(int) (string, *net.UDPConn, error) {
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	var err error
	if h.device, err = net.ListenUDP("udp4", loopback); err != nil {
		return "", nil, err
	}
	w, err := net.DialUDP("udp4", loopback, h.device.LocalAddr().(*net.UDPAddr))
	return "podnet0", w, err
}

func (h *host) SetWireGuard(want helper.WireGuard) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, want)
	return h.fail
}

func (h *host) WireGuardState() (helper.WireGuardState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.fail
}

func (h *host) last() helper.WireGuard {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told[len(h.told)-1]
}

// bind is one that a test receives for, and that notes what is sent.
type bind struct {
	conn.Bind
	arrives chan string

	mu     sync.Mutex
	closed chan struct{}
	sent   [][]string
	moved  func()
}

type endpoint struct{ conn.Endpoint }

func (b *bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := make(chan struct{})
	b.closed = closed
	return []conn.ReceiveFunc{func(bufs [][]byte, sizes []int, _ []conn.Endpoint) (int, error) {
		select {
		case m := <-b.arrives:
			sizes[0], sizes[1] = copy(bufs[0], m), 0
			return 2, nil
		case <-closed:
			return 0, net.ErrClosed
		}
	}}, 4711, nil
}

func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	_, err := netip.ParseAddrPort(s)
	return endpoint{}, err
}

func (b *bind) Send(bufs [][]byte, _ conn.Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var one []string
	for _, m := range bufs {
		one = append(one, string(m))
	}
	b.sent = append(b.sent, one)
	return nil
}

func (b *bind) BatchSize() int { return 8 }

func (b *bind) OnMove(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved = f
}

func newTunnel(t *testing.T) (*Tunnel, *host, *bind) {
	t.Helper()
	h, b := new(host), &bind{arrives: make(chan string)}
	own, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	tun, err := New(h, b, Config{PrivateKey: own, MTU: 1420, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
		_ = h.device.Close()
	})
	return tun, h, b
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

var peer = tunnel.Peer{PublicKey: key.Public{1}, Endpoint: "192.0.2.1:51820", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, Keepalive: 25 * time.Second}

// TestDatagramsGoBothWays, by the Bind as it is opened anew, too. What begins a
// handshake is sent alone.
func TestDatagramsGoBothWays(t *testing.T) {
	tun, h, b := newTunnel(t)
	out := tun.wire.socket.LocalAddr()
	say := func(m []byte) {
		t.Helper()
		if _, err := h.device.WriteTo(m, out); err != nil {
			t.Fatal(err)
		}
	}
	say([]byte("to nobody"))
	if err := tun.SetPeers([]tunnel.Peer{peer}); err != nil {
		t.Fatal(err)
	}
	initiation := make([]byte, initiationSize)
	initiation[0] = msgInitiation
	for _, m := range [][]byte{[]byte("one"), initiation, []byte("two")} {
		say(m)
	}
	eventually(t, "three are sent", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Contains(slices.Concat(b.sent...), "two")
	})
	b.mu.Lock()
	sent := slices.Clone(b.sent)
	b.mu.Unlock()
	if got := slices.Concat(sent...); !slices.Equal(got[len(got)-3:], []string{"one", string(initiation), "two"}) {
		t.Errorf("sent %q", got)
	}
	if !slices.ContainsFunc(sent, func(batch []string) bool { return len(batch) == 1 && batch[0] == string(initiation) }) {
		t.Errorf("the initiation was not alone: %q", sent)
	}
	for _, m := range []string{"before", "after"} {
		b.arrives <- m
		got := make([]byte, 100)
		_ = h.device.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := h.device.Read(got); string(got[:n]) != m {
			t.Errorf("the device gets %q, %v", got[:n], err)
		}
		if err := tun.Rebind(); err != nil {
			t.Fatal(err)
		}
	}
	if tun.ListenPort() != 4711 {
		t.Errorf("port %d", tun.ListenPort())
	}
}

// TestTheDeviceIsToldTheWholeWish: its key, its peer, and to speak after a move.
func TestTheDeviceIsToldTheWholeWish(t *testing.T) {
	tun, h, b := newTunnel(t)
	if got := h.last(); got.PrivateKey.Public() != tun.PublicKey() || !got.Peer.IsZero() {
		t.Errorf("first told %+v", got)
	}
	if err := tun.SetPeers([]tunnel.Peer{peer}); err != nil {
		t.Fatal(err)
	}
	if got := h.last(); got.Peer != peer.PublicKey || got.Keepalive != peer.Keepalive || !slices.Equal(got.AllowedIPs, peer.AllowedIPs) || got.Speak {
		t.Errorf("of a peer it is told %+v", got)
	}
	b.mu.Lock()
	moved := b.moved
	b.mu.Unlock()
	moved()
	eventually(t, "the device speaks", func() bool { return h.last().Speak })
	another, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	if err := tun.SetPrivateKey(another); err != nil {
		t.Fatal(err)
	}
	if got := h.last(); got.PrivateKey != another || got.Peer != peer.PublicKey || tun.PublicKey() != another.Public() {
		t.Errorf("of another key it is told %+v", got)
	}
	for what, want := range map[string][]tunnel.Peer{
		"two peers":         {peer, {PublicKey: key.Public{2}, Endpoint: peer.Endpoint}},
		"a preshared key":   {{PublicKey: key.Public{2}, Endpoint: peer.Endpoint, PresharedKey: new([key.Size]byte)}},
		"no place to be at": {{PublicKey: key.Public{2}}},
	} {
		if err := tun.SetPeers(want); err == nil || h.last().Peer != peer.PublicKey {
			t.Errorf("%s: %v, told %+v", what, err, h.last())
		}
	}
}

// TestHandshakesAndTheEndAreSeen in what the kernel says.
func TestHandshakesAndTheEndAreSeen(t *testing.T) {
	tun, h, _ := newTunnel(t)
	if err := tun.WaitHandshake(t.Context(), peer.PublicKey); !errors.Is(err, tunnel.ErrUnknownPeer) {
		t.Errorf("of a peer that there is not: %v", err)
	}
	if err := tun.SetPeers([]tunnel.Peer{peer}); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	h.mu.Lock()
	h.state = helper.WireGuardState{LastHandshake: at, RxBytes: 7, TxBytes: 9}
	h.mu.Unlock()
	if err := tun.WaitHandshake(t.Context(), peer.PublicKey); err != nil {
		t.Fatal(err)
	}
	want := []tunnel.PeerStats{{PublicKey: peer.PublicKey, Endpoint: peer.Endpoint, LastHandshake: at, RxBytes: 7, TxBytes: 9}}
	if got, err := tun.Stats(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	h.mu.Lock()
	h.fail = errors.New("no such device")
	h.mu.Unlock()
	select {
	case <-tun.Done():
	case <-time.After(2 * lookTries * lookEvery):
		t.Error("a device that is gone is none that has ended")
	}
}
