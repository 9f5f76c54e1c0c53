package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"
)

// A STUN server that answers at all does so within a round trip.
const (
	stunTries = 3
	stunPause = 300 * time.Millisecond
)

// stunWaits are the questions to STUN servers that are not answered yet.
type stunWaits struct {
	n  atomic.Int32 // how many, so that garbage is cheap when there are none
	mu sync.Mutex
	m  map[[stun.TransactionIDSize]byte]stunWait
}

type stunWait struct {
	server netip.AddrPort
	answer chan netip.AddrPort // capacity 1
}

// STUN asks a server (RFC 8489) for the address at which it sees this Bind's UDP
// socket: what a NAT in between has made of it. It tries three times, 300 ms
// apart. An answer is believed when it comes from the server's address and has
// the number of the question, so only somebody on the way can lie.
func (b *Bind) STUN(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error) {
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	mapped, err := b.askSTUN(ctx, server)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("ask STUN server %s: %w", server, err)
	}
	return mapped, nil
}

func (b *Bind) askSTUN(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error) {
	question, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	w := stunWait{server: server, answer: make(chan netip.AddrPort, 1)}
	b.stun.add(question.TransactionID, w)
	defer b.stun.remove(question.TransactionID)
	var failed error
	for range stunTries {
		closed := b.closed.Load()
		if closed == nil {
			return netip.AddrPort{}, net.ErrClosed
		}
		if err := b.tell(way{from: server}, question.Raw); err != nil {
			failed = err
		}
		select {
		case mapped := <-w.answer:
			return mapped, nil
		case <-time.After(stunPause):
		case <-*closed:
			return netip.AddrPort{}, net.ErrClosed
		case <-ctx.Done():
			return netip.AddrPort{}, context.Cause(ctx)
		}
	}
	if failed != nil {
		return netip.AddrPort{}, failed
	}
	return netip.AddrPort{}, ErrNotAnswered
}

func (s *stunWaits) add(id [stun.TransactionIDSize]byte, w stunWait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[[stun.TransactionIDSize]byte]stunWait{}
	}
	s.m[id] = w
	s.n.Add(1)
}

func (s *stunWaits) remove(id [stun.TransactionIDSize]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
	s.n.Add(-1)
}

// heard looks whether m is an answer that somebody waits for.
func (s *stunWaits) heard(from netip.AddrPort, m []byte) {
	if s.n.Load() == 0 || !stun.IsMessage(m) {
		return
	}
	mapped, id, err := parseSTUN(m)
	if err != nil {
		return
	}
	s.mu.Lock()
	w, ok := s.m[id]
	s.mu.Unlock()
	if ok && w.server == from {
		select {
		case w.answer <- mapped:
		default:
		}
	}
}

var errNoAddress = errors.New("STUN answer without an address")

// parseSTUN reads an answer to a binding request.
func parseSTUN(m []byte) (mapped netip.AddrPort, id [stun.TransactionIDSize]byte, err error) {
	// Decode keeps no more than the message, whatever lengths it claims.
	msg := stun.Message{Raw: append([]byte(nil), m...)}
	if err := msg.Decode(); err != nil {
		return mapped, id, err
	}
	if msg.Type != stun.BindingSuccess {
		return mapped, id, fmt.Errorf("STUN message of type %s", msg.Type)
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(&msg); err != nil {
		var old stun.MappedAddress // RFC 3489
		if err := old.GetFrom(&msg); err != nil {
			return mapped, id, errNoAddress
		}
		x.IP, x.Port = old.IP, old.Port
	}
	addr, ok := netip.AddrFromSlice(x.IP)
	if !ok || x.Port <= 0 || x.Port > 65535 || addr.Unmap().IsUnspecified() {
		return mapped, id, errNoAddress
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(x.Port)), msg.TransactionID, nil
}
