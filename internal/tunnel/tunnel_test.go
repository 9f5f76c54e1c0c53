package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type node struct {
	*tunnel.Tunnel
	tun  *tuntest.ChannelTUN
	key  key.Private
	addr netip.Addr
}

func newNode(t *testing.T, bind conn.Bind, addr string, log *slog.Logger) *node {
	t.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{tun: tuntest.NewChannelTUN(), key: k, addr: netip.MustParseAddr(addr)}
	n.Tunnel, err = tunnel.New(n.tun.TUN(), bind, tunnel.Config{PrivateKey: k, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func (n *node) peer(endpoint string) tunnel.Peer {
	return tunnel.Peer{PublicKey: n.key.Public(), Endpoint: endpoint, AllowedIPs: []netip.Prefix{netip.PrefixFrom(n.addr, 32)}}
}

func pair(t *testing.T, log *slog.Logger) (a, b *node) {
	binds := bindtest.NewChannelBinds()
	a, b = newNode(t, binds[0], "10.0.0.1", log), newNode(t, binds[1], "10.0.0.2", log)
	set(t, a, b.peer("127.0.0.1:1"))
	set(t, b, a.peer("127.0.0.1:2"))
	return a, b
}

func set(t *testing.T, n *node, ps ...tunnel.Peer) {
	t.Helper()
	if err := n.SetPeers(ps); err != nil {
		t.Fatal(err)
	}
}

// ping has a packet of a arrive at b.
func ping(t *testing.T, a, b *node) {
	t.Helper()
	msg := tuntest.Ping(b.addr, a.addr)
	select {
	case a.tun.Outbound <- msg:
	case <-time.After(5 * time.Second):
		t.Fatal("tunnel takes no packet")
	}
	select {
	case got := <-b.tun.Inbound:
		if !bytes.Equal(got, msg) {
			t.Error("packet arrived changed")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("packet did not arrive")
	}
}

func lastHandshake(t *testing.T, n *node) time.Time {
	t.Helper()
	ps, err := n.Stats()
	if err != nil || len(ps) != 1 {
		t.Fatalf("stats = %v, %v", ps, err)
	}
	return ps[0].LastHandshake
}

func TestUnchangedPeerKeepsItsSession(t *testing.T) {
	a, b := pair(t, nil)
	ping(t, a, b)
	ping(t, b, a)
	before := lastHandshake(t, a)

	other, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	third := tunnel.Peer{PublicKey: other.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.3/32")}}
	set(t, a, third, b.peer("127.0.0.1:1"))
	ping(t, a, b)
	set(t, a, b.peer("127.0.0.1:1"))
	ping(t, b, a)
	if after := lastHandshake(t, a); after != before {
		t.Errorf("a new handshake at %v, the session of %v should have gone on", after, before)
	}
}

func TestRemovedPeerIsCutOff(t *testing.T) {
	a, b := pair(t, nil)
	ping(t, a, b)
	set(t, b)
	a.tun.Outbound <- tuntest.Ping(b.addr, a.addr)
	select {
	case <-b.tun.Inbound:
		t.Error("a removed peer's packet arrived")
	case <-time.After(100 * time.Millisecond):
	}
	if ps, err := b.Stats(); err != nil || len(ps) != 0 {
		t.Errorf("stats = %v, %v, want none", ps, err)
	}
}

// A session that had to enrol again keeps its device.
func TestTunnelTakesAnotherIdentity(t *testing.T) {
	a, b := pair(t, nil)
	ping(t, a, b)
	old := a.peer("")
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetPrivateKey(k); err != nil {
		t.Fatal(err)
	}
	a.key = k
	if a.PublicKey() != k.Public() {
		t.Error("the tunnel has its old public key")
	}
	if !lastHandshake(t, a).IsZero() {
		t.Error("a handshake of the old identity counts for the new one")
	}
	a.tun.Outbound <- tuntest.Ping(b.addr, a.addr)
	select {
	case <-b.tun.Inbound:
		t.Error("a packet of an unknown identity arrived")
	case <-time.After(100 * time.Millisecond):
	}
	set(t, b, a.peer("127.0.0.1:2"))
	set(t, a, b.peer("127.0.0.1:1"))
	ping(t, b, a) // b shakes hands; a would only try again after 5 s
	for range 2 {
		select {
		case <-b.tun.Inbound: // what a has kept
		case <-time.After(100 * time.Millisecond):
		}
	}
	ping(t, a, b)

	if err := a.SetPrivateKey(b.key); err == nil {
		t.Error("a tunnel became its own peer")
	}
	if err := a.SetPeers([]tunnel.Peer{{PublicKey: a.PublicKey()}}); err == nil {
		t.Error("the new identity was taken for a peer's")
	}
	set(t, a, old, b.peer("127.0.0.1:1")) // the old one is a stranger now
}

func TestWaitHandshake(t *testing.T) {
	a, b := pair(t, nil)
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := a.WaitHandshake(short, b.key.Public()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before any packet: error %v, want a deadline", err)
	}
	if err := a.WaitHandshake(context.Background(), a.key.Public()); !errors.Is(err, tunnel.ErrUnknownPeer) {
		t.Errorf("for a stranger: error %v, want ErrUnknownPeer", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	waited := make(chan error, 2)
	go func() { waited <- a.WaitHandshake(ctx, b.key.Public()) }()
	go func() { waited <- b.WaitHandshake(ctx, a.key.Public()) }()
	ping(t, a, b)
	for range 2 {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
}

func TestContradictionChangesNothing(t *testing.T) {
	a, b := pair(t, nil)
	ping(t, a, b)
	twin := b.peer("127.0.0.1:1")
	other, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	twin.PublicKey = other.Public()
	if err := a.SetPeers([]tunnel.Peer{twin, b.peer("127.0.0.1:1")}); err == nil {
		t.Error("two peers with one address were accepted")
	}
	bad := b.peer("no address")
	if err := a.SetPeers([]tunnel.Peer{bad}); err == nil || !strings.Contains(err.Error(), bad.PublicKey.Short()) {
		t.Errorf("bad endpoint: error %v, want one that names the peer", err)
	}
	ping(t, b, a)
}

func TestThousandsOfPeers(t *testing.T) {
	a, b := pair(t, nil)
	peers := []tunnel.Peer{b.peer("127.0.0.1:1")}
	for i := range 3000 {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, tunnel.Peer{PublicKey: k.Public(), AllowedIPs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32),
			netip.PrefixFrom(k.Public().Address6(), 128),
		}})
	}
	start := time.Now()
	set(t, a, peers...)
	added := time.Since(start)
	ping(t, a, b)
	start = time.Now()
	set(t, a, peers[:len(peers)-1]...)
	one := time.Since(start)
	if one > time.Second {
		t.Errorf("taking one of 3000 peers away took %v", one)
	}
	ps, err := a.Stats()
	if err != nil || len(ps) != 3000 {
		t.Errorf("%d peers, error %v; want 3000", len(ps), err)
	}
	ping(t, b, a)
	t.Logf("added 3000 in %v, took one away in %v", added, one)
}

// onceTUN may be closed twice, as a real one.
type onceTUN struct {
	tun.Device
	once sync.Once
}

func (t *onceTUN) Close() (err error) {
	t.once.Do(func() { err = t.Device.Close() })
	return err
}

func TestDeviceDiesWithItsTUN(t *testing.T) {
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	dev := &onceTUN{Device: tuntest.NewChannelTUN().TUN()}
	a, err := tunnel.New(dev, bindtest.NewChannelBinds()[0], tunnel.Config{PrivateKey: k})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	dev.Close()
	select {
	case <-a.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the tunnel lives on without its TUN")
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// TestSpoofedSourceIsCounted also where nobody reads the device's lines.
func TestSpoofedSourceIsCounted(t *testing.T) {
	a, b := pair(t, slog.New(slog.DiscardHandler))
	ping(t, a, b)
	const tries = 100 // more than the device may log in a second
	for range tries {
		a.tun.Outbound <- tuntest.Ping(b.addr, netip.MustParseAddr("10.0.0.9"))
	}
	ping(t, a, b) // comes behind them, and first
	if n := b.Spoofed(); n != tries {
		t.Errorf("%d packets from a strange source were counted, want %d", n, tries)
	}
	if n := a.Spoofed(); n != 0 {
		t.Errorf("%d of an honest peer's", n)
	}
}

func TestLogsAreDebugAndKeepKeys(t *testing.T) {
	var all, info syncBuffer
	log := slog.New(slog.NewJSONHandler(&all, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, b := pair(t, log)
	p := b.peer("127.0.0.1:1")
	p.PresharedKey = &[key.Size]byte{1, 2, 3}
	set(t, a, p)
	q := a.peer("127.0.0.1:2")
	q.PresharedKey = p.PresharedKey
	set(t, b, q)
	ping(t, a, b)
	a.Close()
	all.mu.Lock()
	text := all.b.String()
	all.mu.Unlock()
	if !strings.Contains(text, "handshake") {
		t.Error("the device's lines are not in the log")
	}
	for _, secret := range []string{a.key.Hex(), b.key.Hex(), fmt.Sprintf("%x", p.PresharedKey[:])} {
		if strings.Contains(text, secret[:16]) {
			t.Error("a key is in the log")
		}
	}
	quiet := slog.New(slog.NewJSONHandler(&info, nil))
	c, d := pair(t, quiet)
	ping(t, c, d)
	if info.b.Len() > 0 {
		t.Errorf("at info level the device says %s", info.b.String())
	}
}
