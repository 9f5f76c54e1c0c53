package dnsproxy

import (
	"context"
	"net/netip"
	"sync"
)

// shares gives each client the same number of places and no more.
type shares struct {
	each int // 0: as many as it likes

	mu      sync.Mutex
	clients map[netip.Addr]*share // who has a place or waits for one
}

type share struct {
	places chan struct{}
	users  int // who has a place or waits for one
}

func newShares(each int) *shares {
	return &shares{each: max(0, each), clients: map[netip.Addr]*share{}}
}

// take takes a place if a has one left.
func (s *shares) take(a netip.Addr) bool {
	if s.each == 0 {
		return true
	}
	select {
	case s.use(a).places <- struct{}{}:
		return true
	default:
		s.done(a)
		return false
	}
}

// await takes a place once a has one left. It reports false when ctx ended
// before.
func (s *shares) await(ctx context.Context, a netip.Addr) bool {
	if s.each == 0 {
		return true
	}
	select {
	case s.use(a).places <- struct{}{}:
		return true
	case <-ctx.Done():
		s.done(a)
		return false
	}
}

// give gives back a place that take or await took.
func (s *shares) give(a netip.Addr) {
	if s.each == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	<-s.clients[a].places
	s.doneLocked(a)
}

// use is a's share, which stays until done.
func (s *shares) use(a netip.Addr) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[a]
	if c == nil {
		c = &share{places: make(chan struct{}, s.each)}
		s.clients[a] = c
	}
	c.users++
	return c
}

func (s *shares) done(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doneLocked(a)
}

func (s *shares) doneLocked(a netip.Addr) {
	c := s.clients[a]
	if c.users--; c.users == 0 {
		delete(s.clients, a)
	}
}
