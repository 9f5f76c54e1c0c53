package meet

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/wake"
)

const (
	// reflectEvery is how often STUN servers are asked. It keeps the mappings in
	// the NAT, which may forget after 30 s (Linux' conntrack for what got one
	// answer; RFC 4787 wants two minutes), and it bounds how often status changes.
	reflectEvery = 20 * time.Second
	// reflectRetry is how soon they are asked again while none has answered.
	reflectRetry = 2 * time.Second
	// staleAfter is how long after the last answer what was found is not true any
	// more.
	staleAfter = time.Minute
	// serverAddresses bounds the addresses of one family that are asked of one
	// server: two tell the NAT's kind.
	serverAddresses = 2
)

// Reflector learns from STUN servers how the cluster's NAT shows the WireGuard
// port to the world.
type Reflector struct {
	servers []string // host:port
	log     *slog.Logger
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	ask     func(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error) // from the WireGuard port
	port    uint16
	changed func()

	found atomic.Pointer[reflection]
}

// NewReflector makes one that asks these servers (host:port) from the WireGuard port, by
// ask, and calls changed when it has learned something.
func NewReflector(servers []string, port uint16, ask func(context.Context, netip.AddrPort) (netip.AddrPort, error), log *slog.Logger, changed func()) *Reflector {
	return &Reflector{servers: servers, log: log, lookup: lookupHost, ask: ask, port: port, changed: changed}
}

// reflection is what servers saw.
type reflection struct {
	nat        nat.Kind
	candidates []string
}

func (r *reflection) equal(o *reflection) bool {
	return r.nat == o.nat && slices.Equal(r.candidates, o.candidates)
}

func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// Describe puts what was found into a gateway's entry.
func (r *Reflector) Describe(e *podnet.Gateway) {
	if f := r.found.Load(); f != nil {
		e.Candidates, e.NAT = f.candidates, string(f.nat)
	}
}

// Run asks until ctx ends.
func (r *Reflector) Run(ctx context.Context) error {
	if len(r.servers) == 0 {
		return nil
	}
	misses, answered := 0, time.Now()
	for {
		wait := reflectEvery
		if r.once(ctx) {
			misses, answered = 0, time.Now()
		} else if ctx.Err() == nil {
			if misses++; misses == 3 {
				r.log.Warn("no STUN server answers", "servers", r.servers)
			}
			if time.Since(answered) >= staleAfter {
				r.note(&reflection{})
			}
			wait = min(reflectRetry*time.Duration(misses), reflectEvery)
		}
		if !wake.After(ctx, wait) {
			return nil
		}
	}
}

// once asks all servers and notes what they say. It reports whether any did.
func (r *Reflector) once(ctx context.Context) bool {
	answers := r.round(ctx)
	if len(answers) == 0 {
		return false
	}
	f := nat.Look(r.port, answers)
	r.note(&reflection{f.Kind, nat.Candidates(nil, f, nil, maxCandidates)})
	return true
}

func (r *Reflector) note(f *reflection) {
	if old := r.found.Swap(f); old == nil && len(f.candidates) == 0 || old != nil && old.equal(f) {
		return
	}
	r.log.Info("seen from outside", "candidates", f.candidates, "nat", string(f.nat))
	r.changed()
}

// round asks every server once, one after the other: how the NAT counts from one
// to the next says where it will be next.
func (r *Reflector) round(ctx context.Context) []nat.Answer {
	var all []nat.Answer
	for _, server := range r.servers {
		for _, at := range r.resolve(ctx, server) {
			mapped, err := r.ask(ctx, at)
			if err != nil {
				r.log.Debug("a STUN server does not answer", "addr", at, "err", err)
				continue
			}
			all = append(all, nat.Answer{Server: at, Mapped: mapped})
		}
	}
	return all
}

// resolve finds a server's addresses, at most two of each family.
func (r *Reflector) resolve(ctx context.Context, server string) []netip.AddrPort {
	if at, err := netip.ParseAddrPort(server); err == nil {
		return []netip.AddrPort{at}
	}
	host, text, err := net.SplitHostPort(server)
	port, err2 := strconv.ParseUint(text, 10, 16)
	if err != nil || err2 != nil {
		return nil // Options were checked
	}
	addrs, err := r.lookup(ctx, host)
	if err != nil {
		r.log.Debug("a STUN server has no address", "name", host, "err", err)
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // the same ones each time, whatever the order of the answer
	var all []netip.AddrPort
	count := map[bool]int{}
	for _, a := range addrs {
		if a = a.Unmap(); count[a.Is4()] < serverAddresses {
			count[a.Is4()]++
			all = append(all, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	return all
}
