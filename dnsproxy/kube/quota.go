package kube

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Quota is what one peer may have the cluster's own DNS server asked, so that
// random names from one laptop keep neither that server nor us from answering
// the others. What Upstream remembers costs nothing. The zero Quota is none.
type Quota struct {
	// AtOnce is how many questions may be under way at the same time; what is
	// asked beyond that is SERVFAIL. 0: no limit.
	AtOnce int
	// PerSecond is how many may begin in a second. They wait for their turn.
	// 0: no limit.
	PerSecond int
}

// sweepAt is how many accounts there are before those that count nothing are
// looked for.
const sweepAt = 1024

// accounts are what peers have had asked.
type accounts struct {
	quota Quota

	mu    sync.Mutex
	peers map[netip.Addr]*account
	sweep int // the number of accounts at which to sweep next
}

// account is one peer's. Its fields are guarded by the mutex of accounts.
type account struct {
	open   int
	begins *rate.Limiter
	// quiet: the server did not answer this peer's last question and is not
	// asked for it before then. It is one peer's affair: a server that answers
	// may well have names, of a zone that it forwards, that take for ever.
	quiet time.Time
}

func newAccounts(q Quota) *accounts {
	return &accounts{quota: q, peers: map[netip.Addr]*account{}, sweep: sweepAt}
}

// enter asks for leave to ask for a peer; when it is given, leave must be
// called.
func (s *accounts) enter(ctx context.Context, peer netip.Addr) (leave func(), ok bool) {
	a := s.open(peer)
	if a == nil {
		return nil, false
	}
	leave = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.open--
	}
	if s.quota.PerSecond > 0 && a.begins.Wait(ctx) != nil {
		leave()
		return nil, false
	}
	return leave, true
}

// pause notes that the server did not answer a peer.
func (s *accounts) pause(peer netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.peers[peer]; a != nil {
		a.quiet = time.Now().Add(confirmPause)
	}
}

// paused says whether the server did not answer a peer a moment ago.
func (s *accounts) paused(peer netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.peers[peer]
	return a != nil && time.Now().Before(a.quiet)
}

// open is nil when the peer has as many questions under way as it may.
func (s *accounts) open(peer netip.Addr) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.peers[peer]
	if a == nil {
		s.sweepLocked()
		a = &account{begins: rate.NewLimiter(rate.Limit(s.quota.PerSecond), s.quota.PerSecond)}
		s.peers[peer] = a
	}
	if s.quota.AtOnce > 0 && a.open >= s.quota.AtOnce {
		return nil
	}
	a.open++
	return a
}

// sweepLocked forgets accounts that count nothing, now and then.
func (s *accounts) sweepLocked() {
	if len(s.peers) < s.sweep {
		return
	}
	now := time.Now()
	for peer, a := range s.peers {
		if a.open == 0 && a.begins.TokensAt(now) >= float64(s.quota.PerSecond) && now.After(a.quiet) {
			delete(s.peers, peer)
		}
	}
	s.sweep = max(sweepAt, 2*len(s.peers))
}
