// Package tunnel runs one WireGuard device: packets of a tun.Device on one
// side, datagrams of a conn.Bind on the other. It is the only importer of
// wireguard-go's device package. It knows keys and addresses, not who they
// belong to.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/key"
)

// Config is what a tunnel is born with.
type Config struct {
	PrivateKey key.Private
	ListenPort uint16 // UDP; 0: any
	Log        *slog.Logger
}

// Tunnel is a running device.
type Tunnel struct {
	port uint16
	dev  *device.Device
	bind conn.Bind
	send *window
	show *Shower

	credits *credits // nil: dev is no sorter, and send is for all peers

	spoofed *atomic.Uint64

	closeOnce sync.Once

	mu   sync.Mutex
	self key.Public
	have peerSet // what the device was told last
}

// New starts a device on dev and bind and owns both from then on, also when it
// fails. A Bind that can tell when a gateway's path has changed makes the
// tunnel send keepalives then, see showAfter.
func New(dev tun.Device, bind conn.Bind, cfg Config) (*Tunnel, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	send, recv := newWindow(sendPatience), newWindow(recvPatience)
	var cr *credits
	if s, ok := dev.(sorter); ok {
		cr = newCredits(send.limit, s.Look)
		s.Sort(cr.of, cr.credit)
	}
	spoofed := new(atomic.Uint64)
	t := &Tunnel{
		self: cfg.PrivateKey.Public(),
		dev: device.NewDevice(&windowTUN{Device: dev, send: send, recv: recv, credits: cr},
			&windowBind{Bind: bind, send: send, recv: recv, credits: cr}, deviceLogger(cfg.Log, spoofed)),
		bind:    bind,
		send:    send,
		credits: cr,
		spoofed: spoofed,
		have:    peerSet{},
	}
	t.show = NewShower(t.dev.SendKeepalivesToPeersWithCurrentKeypair)
	err := t.dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", cfg.PrivateKey.Hex(), cfg.ListenPort))
	if err == nil {
		err = t.dev.Up()
	}
	if err == nil {
		t.port, _, err = t.state()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start tunnel on UDP port %d: %w", cfg.ListenPort, err), t.Close())
	}
	if m, ok := bind.(mover); ok {
		m.OnMove(t.show.Move)
	}
	return t, nil
}

// PublicKey is the tunnel's own.
func (t *Tunnel) PublicKey() key.Public {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.self
}

// SetPrivateKey gives the tunnel another identity. Its peers stay, but begin
// anew: without sessions, handshakes and counters, at the endpoints that were
// wished for them. An identity that is one of the peers' changes nothing.
func (t *Tunnel) SetPrivateKey(k key.Private) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	self := k.Public()
	if self == t.self {
		return nil
	}
	if _, peer := t.have[self]; peer {
		return fmt.Errorf("set private key: %s is a peer of this tunnel", self.Short())
	}
	// The device wants its own key first. What is left of the peers' sessions
	// goes with the peers.
	text := fmt.Sprintf("private_key=%s\n", k.Hex()) + plan(t.have, peerSet{}) + plan(peerSet{}, t.have)
	if err := t.applyLocked("set private key", text, t.have); err != nil {
		return err
	}
	t.self = self
	return nil
}

// ListenPort is the UDP port the Bind got.
func (t *Tunnel) ListenPort() uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.port
}

// Rebind moves to another UDP port, a free one. NATs and firewalls that hold
// something wrong about the old one know nothing of the new. Sessions go on.
func (t *Tunnel) Rebind() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.dev.IpcSet("listen_port=0\n")
	if err == nil {
		t.port, _, err = t.state()
	}
	if err != nil {
		return fmt.Errorf("take another UDP port: %w", err)
	}
	return nil
}

// SetPeers makes want the tunnel's peers. Peers that were wished before with
// the same values keep their sessions and counters. A wish that contradicts
// itself (the same key or the same allowed IPs twice) changes nothing.
func (t *Tunnel) SetPeers(want []Peer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, err := newPeerSet(t.self, want)
	if err != nil {
		return err
	}
	for _, p := range set {
		if p.Endpoint == "" {
			continue
		}
		if _, err := t.bind.ParseEndpoint(p.Endpoint); err != nil {
			return fmt.Errorf("set peers: endpoint of peer %s: %w", p.PublicKey.Short(), err)
		}
	}
	return t.applyLocked("set peers", plan(t.have, set), set)
}

// applyLocked tells the device text, after which it has the peers of set.
func (t *Tunnel) applyLocked(attempt, text string, set peerSet) error {
	if text == "" {
		return nil
	}
	if err := t.dev.IpcSet(text); err != nil {
		// Half a plan may be in the device. Start over from nothing: peers
		// shake hands again, which beats guessing.
		t.dev.RemoveAllPeers()
		t.have = peerSet{}
		return fmt.Errorf("%s: %w", attempt, err)
	}
	t.have = set
	if t.credits != nil {
		t.credits.setPeers(set)
	}
	if set.alone() {
		t.send.setPatience(sendPatienceAlone)
	} else {
		t.send.setPatience(sendPatience)
	}
	return nil
}

// Stats are the device's peers in no order.
func (t *Tunnel) Stats() ([]PeerStats, error) {
	_, peers, err := t.state()
	return peers, err
}

// Spoofed is how many packets were dropped because their inner source was not
// among their peer's allowed IPs.
func (t *Tunnel) Spoofed() uint64 { return t.spoofed.Load() }

func (t *Tunnel) state() (uint16, []PeerStats, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(t.dev.IpcGetOperation(w)) }()
	defer r.Close() // lets the writer end if parsing stopped early
	return parseStats(r)
}

// ErrUnknownPeer says that the tunnel has no such peer.
var ErrUnknownPeer = errors.New("unknown peer")

// handshakePoll is how often WaitHandshake looks. The device has no event for
// it; 10 ms is far below what a person notices and costs nothing with the few
// peers a laptop has.
const handshakePoll = 10 * time.Millisecond

// WaitHandshake returns nil once the tunnel has had a handshake with peer, and
// the context's error or ErrUnknownPeer otherwise. A responder counts it as
// had when the initiator's first data packet arrives.
func (t *Tunnel) WaitHandshake(ctx context.Context, peer key.Public) error {
	tick := time.NewTicker(handshakePoll)
	defer tick.Stop()
	for {
		peers, err := t.Stats()
		if err != nil {
			return err
		}
		known := false
		for _, p := range peers {
			if p.PublicKey == peer {
				known = true
				if !p.LastHandshake.IsZero() {
					return nil
				}
			}
		}
		if !known {
			return fmt.Errorf("wait for handshake with %s: %w", peer.Short(), ErrUnknownPeer)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for handshake with %s: %w", peer.Short(), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Done is closed when the device has ended: after Close, or because its
// tun.Device failed.
func (t *Tunnel) Done() <-chan struct{} { return t.dev.Wait() }

// Watch waits until ctx ends, or fails when the device has ended by itself.
func (t *Tunnel) Watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-t.Done():
		return errors.New("the tunnel's device has ended")
	}
}

// Close ends the device, its tun.Device and the Bind's sockets, and waits.
func (t *Tunnel) Close() error {
	t.closeOnce.Do(func() {
		if m, ok := t.bind.(mover); ok {
			m.OnMove(nil)
		}
		t.show.Close()
		// The device takes its network lock to close the Bind, and a Send
		// that is held back by a slow path holds that lock for reading.
		// Closing the Bind first sets it free.
		t.bind.Close()
		t.dev.Close()
	})
	<-t.dev.Wait()
	return nil
}
