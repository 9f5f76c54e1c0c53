package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"podnet.dev/client/addressing"
	"podnet.dev/client/localapi"
	"podnet.dev/dnsproxy"
)

// Fleet is the sessions of one daemon, each with another cluster, as far as they
// have to know of each other. The zero Fleet is empty.
type Fleet struct {
	// proxies are the DNS proxies: whichever the host asks, the one that knows the
	// name answers.
	proxies dnsproxy.Group
	// notes is held while the note of objects in clusters is rewritten.
	notes sync.Mutex

	mu  sync.Mutex
	all []*Session
	own map[*Session][]netip.Addr
	// outside is what sessions reach beside all tunnels, see keepOut.
	outside map[*Session][]netip.Addr
	ways    map[*Session]way
}

func (f *Fleet) join(s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, s)
}

// before is how many sessions there are beside s.
func (f *Fleet) before(s *Session) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.all), func(o *Session) bool { return o == s }))
}

func (f *Fleet) leave(s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = slices.DeleteFunc(f.all, func(o *Session) bool { return o == s })
	delete(f.own, s)
	delete(f.outside, s)
	delete(f.ways, s)
}

// networks are those that the sessions but s route.
func (f *Fleet) networks(s *Session) []addressing.Network {
	f.mu.Lock()
	all := slices.Clone(f.all)
	f.mu.Unlock()
	var out []addressing.Network
	for _, o := range all {
		if o == s {
			continue
		}
		c, _ := o.Status()
		for _, text := range c.Routes {
			if p, err := netip.ParsePrefix(text); err == nil {
				out = append(out, addressing.Network{Prefix: p, Session: c.Name})
			}
		}
	}
	return out
}

// way is what a session routes: prefixes, and addresses that are kept out of them.
type way struct {
	into   []netip.Prefix
	beside []netip.Addr
}

// noteWay notes what s routes from now on.
func (f *Fleet) noteWay(s *Session, w way) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ways == nil {
		f.ways = map[*Session]way{}
	}
	f.ways[s] = w
}

// routes says whether another session than s routes one of the addresses.
func (f *Fleet) routes(s *Session, addrs []netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for o, w := range f.ways {
		for _, a := range addrs {
			if o != s && !slices.Contains(w.beside, a) && slices.ContainsFunc(w.into, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return true
			}
		}
	}
	return false
}

// wayTime is how long one session waits for another to make way. Who is slower does
// it afterwards.
const wayTime = 2 * time.Second

// keepOut notes the addresses that s has to reach beside all tunnels, and returns when
// no other session routes them. One that is not ready yet finds them when it sets its
// routes.
func (f *Fleet) keepOut(ctx context.Context, s *Session, addrs []netip.Addr) {
	f.mu.Lock()
	if f.outside == nil {
		f.outside = map[*Session][]netip.Addr{}
	}
	f.outside[s] = addrs
	all := slices.Clone(f.all)
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wayTime)
	defer cancel()
	for _, o := range all {
		if o == s || !o.ready.Load() {
			continue
		}
		done := make(chan struct{})
		select {
		case o.wishes <- func() { o.makeWay(); close(done) }:
			<-done
		case <-o.jobs.ctx.Done():
		case <-ctx.Done():
			return
		}
	}
}

// keptOut are the addresses that the sessions but s have to reach beside all tunnels.
func (f *Fleet) keptOut(s *Session) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []netip.Addr
	for o, addrs := range f.outside {
		if o != s {
			all = append(all, addrs...)
		}
	}
	return all
}

// claim makes own s's addresses in its tunnel, unless another session has one of
// them. Gateways make the IPv4 address of user and device (gateway/enrol), so a
// user of the same name has the same one in each cluster at first.
func (f *Fleet) claim(s *Session, own []netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for o, theirs := range f.own {
		if o != s && slices.ContainsFunc(theirs, func(a netip.Addr) bool { return slices.Contains(own, a) }) {
			return false
		}
	}
	if f.own == nil {
		f.own = map[*Session][]netip.Addr{}
	}
	f.own[s] = own
	return true
}

// has says whether an address is a session's own in its tunnel.
func (f *Fleet) has(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, own := range f.own {
		if slices.Contains(own, a) {
			return true
		}
	}
	return false
}

// addressTries is how many names of this machine are tried until a gateway gives
// an address that no other session has. Each is one of 65,000 (198.18.0.0/16).
const addressTries = 4

// deviceOf is what this machine is called in its nth session beside the first.
func deviceOf(nth int) string {
	if nth == 0 {
		return device()
	}
	return fmt.Sprintf("%.60s-%d", device(), nth+1)
}

// distinct is m, or where another session has m's address a new member in m's
// place, of a device by another name, which the session keeps. It returns the last
// that may have objects, also with an error.
func (s *Session) distinct(ctx context.Context, m *member) (*member, error) {
	for range addressTries {
		if s.Fleet.claim(s, m.network.own) {
			return m, nil
		}
		s.Log.Info("address is another session's, enrolling as another device", "peer", m.Peer, "addr", m.network.own)
		if err := s.objects.leave(ctx, m.grant); err != nil {
			return m, err
		}
		s.nth++
		s.objects.device = deviceOf(s.nth)
		next, refused, err := s.objects.apply(ctx, m.Accesses)
		if next != nil {
			m = next
		}
		for _, why := range refused {
			err = why
		}
		if err == nil {
			err = s.objects.await(ctx, m)
		}
		if err != nil {
			return m, err
		}
	}
	return m, fmt.Errorf("the gateway gave us addresses of another session %d times", addressTries)
}

// zone is the one below dnsproxy.AliasZone that has our names whoever is primary.
func (s *Session) zone() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.DNS.Alias
}

// SetPrimary says whether short names and those of the cluster's zone are ours on
// this host, and returns when the host resolves by it.
func (s *Session) SetPrimary(ctx context.Context, yes bool) error {
	s.secondary.Store(!yes)
	if !s.ready.Load() {
		return nil // the keeper sees to it
	}
	done := make(chan error, 1)
	select {
	case s.wishes <- func() { done <- s.lead() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.jobs.ctx.Done():
		return notReady()
	}
	return <-done
}

// lead makes the host's resolver follow SetPrimary. It is for the loop of the
// session.
func (s *Session) lead() error {
	was := s.names
	s.names.secondary = s.secondary.Load()
	if was.secondary != s.names.secondary {
		if err := s.setNames(s.jobs.ctx, s.hosted); err != nil {
			s.names = was
			s.warn(localapi.Warning{Code: "primary", Severity: "high", Text: "the host's resolver does not follow the primary session: " + err.Error(), Hint: "podnet primary NAME tries again"})
			return err
		}
	}
	s.clear("primary", "the host's resolver follows the primary session again")
	return nil
}
