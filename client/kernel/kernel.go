// Package kernel is a tunnel whose WireGuard is the kernel's. The device's one peer
// is a socket on this machine's loopback. What comes there goes on by a conn.Bind,
// and what the Bind receives goes back: which way datagrams take is the Bind's
// business, as it is for a device in this process (docs/adr/0015). The package knows
// keys and addresses, not whose they are.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/client/helper"
	"podnet.dev/internal/key"
	"podnet.dev/internal/tunnel"
)

const (
	// lookEvery is how often the kernel is asked how its peer does, lookTries how
	// many times in a row it may not answer before the device counts as gone.
	lookEvery = time.Second
	lookTries = 3
	// handshakePoll is how often WaitHandshake looks: each time is a call to
	// podnet-helper and one to the kernel, some 100 µs together.
	handshakePoll = 20 * time.Millisecond
)

// Config is what a tunnel is born with.
type Config struct {
	PrivateKey key.Private
	MTU        int // of the interface, in bytes
	Log        *slog.Logger
}

// Tunnel does with the kernel's device what tunnel.Tunnel does with one in this
// process, for at most one peer.
type Tunnel struct {
	name string
	host helper.Kernel
	bind conn.Bind
	log  *slog.Logger
	show *tunnel.Shower
	wire *wire
	// gone is closed when the device has ended, or we have.
	gone    chan struct{}
	end     sync.Once
	closing sync.Once
	wait    sync.WaitGroup

	// telling is held while the device is told.
	telling sync.Mutex
	told    helper.WireGuard
	self    atomic.Pointer[key.Public]
	port    atomic.Uint32
	// peer is the endpoint that was wished, and state what the kernel said last.
	mu    sync.Mutex
	peer  *tunnel.Peer
	state helper.WireGuardState
}

// mover is a Bind whose gateways change paths. Transport's Bind is one.
type mover interface{ OnMove(func()) }

// New makes the device and owns bind from then on, also when it fails. The
// interface is the host's to take back.
func New(host helper.Kernel, bind conn.Bind, c Config) (*Tunnel, error) {
	name, socket, err := host.WireGuard(c.MTU)
	if err != nil {
		return nil, errors.Join(err, bind.Close())
	}
	t := &Tunnel{name: name, host: host, bind: bind, log: c.Log, gone: make(chan struct{})}
	t.wire = newWire(socket, bind, t.fail, c.Log)
	t.show = tunnel.NewShower(t.speak)
	t.wait.Go(t.watch)
	t.told.PrivateKey = c.PrivateKey
	self := c.PrivateKey.Public()
	t.self.Store(&self)
	if err = host.SetWireGuard(t.told); err == nil {
		err = t.open()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start interface %s: %w", name, err), t.Close())
	}
	if m, ok := bind.(mover); ok {
		m.OnMove(t.show.Move)
	}
	return t, nil
}

// Name is the interface's.
func (t *Tunnel) Name() string { return t.name }

// PublicKey is the device's own.
func (t *Tunnel) PublicKey() key.Public { return *t.self.Load() }

// ListenPort is the UDP port that the Bind has; the device's own is nobody's to
// know.
func (t *Tunnel) ListenPort() uint16 { return uint16(t.port.Load()) }

// open opens the Bind on a free port.
func (t *Tunnel) open() error {
	port, err := t.wire.open()
	t.port.Store(uint32(port))
	return err
}

// Rebind moves to another UDP port, a free one. The WireGuard session goes on.
func (t *Tunnel) Rebind() error {
	t.telling.Lock()
	defer t.telling.Unlock()
	err := t.wire.close()
	if err == nil {
		err = t.open()
	}
	if err != nil {
		return fmt.Errorf("take another UDP port: %w", err)
	}
	return nil
}

// SetPrivateKey gives the device another identity. Its peer stays and begins anew.
func (t *Tunnel) SetPrivateKey(k key.Private) error {
	t.telling.Lock()
	defer t.telling.Unlock()
	self := k.Public()
	if self == t.PublicKey() {
		return nil
	}
	want := t.told
	want.PrivateKey = k
	if err := t.tellLocked(want); err != nil {
		return fmt.Errorf("set private key: %w", err)
	}
	t.self.Store(&self)
	return nil
}

// SetPeers makes want the device's peers: none, or one. A peer that was wished
// before keeps its session.
func (t *Tunnel) SetPeers(want []tunnel.Peer) error {
	t.telling.Lock()
	defer t.telling.Unlock()
	wish := helper.WireGuard{PrivateKey: t.told.PrivateKey}
	var to conn.Endpoint
	var peer *tunnel.Peer
	switch {
	case len(want) > 1:
		return errors.New("set peers: the kernel's device has one peer at a time")
	case len(want) == 1 && want[0].PresharedKey != nil:
		return errors.New("set peers: the kernel's device is given no preshared key")
	case len(want) == 1:
		p := want[0]
		var err error
		if to, err = t.bind.ParseEndpoint(p.Endpoint); err != nil {
			return fmt.Errorf("set peers: endpoint of peer %s: %w", p.PublicKey.Short(), err)
		}
		peer = &p
		wish.Peer, wish.AllowedIPs, wish.Keepalive = p.PublicKey, p.AllowedIPs, p.Keepalive.Truncate(time.Second)
	}
	// The handshake of a new peer begins at once.
	t.wire.aim(to)
	fresh := wish.Peer != t.told.Peer
	if err := t.tellLocked(wish); err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peer = peer
	if fresh {
		t.state = helper.WireGuardState{}
	}
	return nil
}

// tellLocked tells the device. What was not understood is told wholly anew with the
// next wish, see helper.Kernel.
func (t *Tunnel) tellLocked(want helper.WireGuard) error {
	if err := t.host.SetWireGuard(want); err != nil {
		return err
	}
	t.told = want
	return nil
}

// speak sends a keepalive, so that the peer answers by the way that it came.
func (t *Tunnel) speak() {
	t.telling.Lock()
	defer t.telling.Unlock()
	if t.told.Peer.IsZero() {
		return
	}
	want := t.told
	want.Speak = true
	if err := t.host.SetWireGuard(want); err != nil {
		t.log.Debug("cannot have the device speak", "err", err)
	}
}

// Stats are the device's peer, as the kernel said last.
func (t *Tunnel) Stats() ([]tunnel.PeerStats, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peer == nil {
		return nil, nil
	}
	return []tunnel.PeerStats{{PublicKey: t.peer.PublicKey, Endpoint: t.peer.Endpoint, LastHandshake: t.state.LastHandshake, RxBytes: t.state.RxBytes, TxBytes: t.state.TxBytes}}, nil
}

// WaitHandshake returns nil once the device has had a handshake with peer, and the
// context's error or tunnel.ErrUnknownPeer otherwise.
func (t *Tunnel) WaitHandshake(ctx context.Context, peer key.Public) error {
	tick := time.NewTicker(handshakePoll)
	defer tick.Stop()
	for {
		st, err := t.look(peer)
		switch {
		case err != nil:
			return err
		case !st.LastHandshake.IsZero():
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for handshake with %s: %w", peer.Short(), context.Cause(ctx))
		case <-t.gone:
			return fmt.Errorf("wait for handshake with %s: %w", peer.Short(), net.ErrClosed)
		case <-tick.C:
		}
	}
}

// look asks the kernel about its peer, which is to be the one given; the zero one:
// whoever it is.
func (t *Tunnel) look(peer key.Public) (helper.WireGuardState, error) {
	t.telling.Lock() // so that it is about the peer that was told last
	defer t.telling.Unlock()
	if !peer.IsZero() && peer != t.told.Peer {
		return helper.WireGuardState{}, fmt.Errorf("wait for handshake with %s: %w", peer.Short(), tunnel.ErrUnknownPeer)
	}
	st, err := t.host.WireGuardState()
	if err != nil {
		return st, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = st
	return st, nil
}

// watch keeps what Stats says up to date, and finds out when the device is gone.
func (t *Tunnel) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for failed := 0; ; {
		select {
		case <-t.gone:
			return
		case <-tick.C:
		}
		if _, err := t.look(key.Public{}); err == nil {
			failed = 0
		} else if failed++; failed == lookTries {
			t.fail(err)
			return
		}
	}
}

// fail ends what cannot go on.
func (t *Tunnel) fail(err error) {
	t.end.Do(func() {
		if err != nil {
			t.log.Warn("the kernel's WireGuard device is of no use any more", "interface", t.name, "err", err)
		}
		close(t.gone)
	})
}

// Done is closed when the device has ended: after Close, or because its interface
// or the wire to it is no more.
func (t *Tunnel) Done() <-chan struct{} { return t.gone }

// Close ends what goes between the device and the Bind, and the Bind, and waits.
func (t *Tunnel) Close() error {
	var err error
	t.closing.Do(func() {
		if m, ok := t.bind.(mover); ok {
			m.OnMove(nil)
		}
		t.fail(nil)
		t.show.Close()
		err = t.wire.end()
		t.wait.Wait()
	})
	return err
}
