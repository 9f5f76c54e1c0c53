package client

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/nat"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/wake"
)

const (
	// stunTime is for resolving one STUN server's name and asking it.
	stunTime = 2 * time.Second
	// knockTime is how long the gateway takes to see our candidates and knock at
	// them.
	knockTime = 300 * time.Millisecond
	// hangTime is from when on a call is taken for one on a dead connection:
	// whatever took our UDP away may have taken that as well.
	hangTime = 1500 * time.Millisecond
	// maxCandidates is what a Peer may hold.
	maxCandidates = 16
)

// reach is where this machine may be reached by UDP, as far as it can know.
type reach struct {
	finding    nat.Finding
	candidates []string
	asked      bool // there were STUN servers to ask
}

// asker asks a STUN server from the WireGuard socket; transport.Bind is one.
type asker interface {
	STUN(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error)
}

// lookAround finds out where our WireGuard socket may be reached: by asking the
// STUN servers, and by what the gateway sees. Servers are asked one after the
// other: how a NAT counts its ports up shows in the order only.
func lookAround(ctx context.Context, bind asker, port uint16, servers []string, observed netip.AddrPort, own []netip.Addr, log *slog.Logger) reach {
	r := reach{asked: len(servers) > 0}
	var answers []nat.Answer
	for _, s := range servers {
		ctx, cancel := context.WithTimeout(ctx, stunTime)
		addrs, err := resolve(ctx, s)
		for _, a := range addrs {
			var mapped netip.AddrPort
			if mapped, err = bind.STUN(ctx, a); err == nil {
				answers = append(answers, nat.Answer{Server: a, Mapped: mapped})
			}
		}
		if err != nil {
			log.Debug("no answer of a STUN server", "addr", s, "err", err)
		}
		cancel()
	}
	r.finding = nat.Look(port, answers)
	var seen []netip.AddrPort
	if observed.IsValid() {
		seen = []netip.AddrPort{observed}
	}
	r.candidates = nat.Candidates(hostAddresses(port, own), r.finding, seen, maxCandidates)
	return r
}

// resolve turns "host:port" into at most one address of each family.
func resolve(ctx context.Context, server string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(server); err == nil {
		return []netip.AddrPort{a}, nil
	}
	host, portText, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", portText)
	if err != nil {
		return nil, err
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var out []netip.AddrPort
	for _, six := range []bool{false, true} {
		if i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Unmap().Is6() == six }); i >= 0 {
			out = append(out, netip.AddrPortFrom(all[i].Unmap(), uint16(port)))
		}
	}
	return out, err
}

// hostAddresses are those of this machine's interfaces, but for our own tunnel's.
func hostAddresses(port uint16, own []netip.Addr) []netip.AddrPort {
	var all []netip.AddrPort
	for _, p := range hostPrefixes() {
		if !slices.Contains(own, p.Addr()) {
			all = append(all, netip.AddrPortFrom(p.Addr(), port))
		}
	}
	return all
}

// hostPrefixes are the addresses of this machine with their networks.
func hostPrefixes() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	return prefixesOf(addrs)
}

func prefixesOf(addrs []net.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		if addr = addr.Unmap(); addr.IsValid() {
			all = append(all, netip.PrefixFrom(addr, ones))
		}
	}
	return all
}

// lookAround finds out where we may be reached, and tells the gateway by our
// Peer. anew does so from another port, for when there is no way by UDP from
// this one: whatever NATs on the way hold about it is in the past then. While
// UDP is in use the port stays. While one look is under way the next one waits.
func (s *Session) lookAround(anew bool) {
	if s.link.only == transport.APIServer {
		return
	}
	if s.jobs.running["look"] != nil {
		s.lookAgain = &anew
		return
	}
	m, own := s.member, s.hosted.own
	var servers []string
	if w := m.granted.Status.Network; w != nil {
		servers = w.STUN
	}
	var observed netip.AddrPort
	if r := s.link.remote(); r != nil {
		st := r.Status()
		if anew = anew && st.Active.Kind != transport.UDP; !anew {
			observed = st.Observed
		}
	}
	var last []string
	if s.said.of == m {
		last = s.said.candidates
	}
	s.jobs.start("look", func(ctx context.Context) outcome {
		if anew {
			s.link.invite(nil)
			if err := s.link.tunnel.Rebind(); err != nil {
				s.Log.Warn("cannot try another port", "err", err)
			}
		}
		r := lookAround(ctx, s.link.bind, s.link.tunnel.ListenPort(), servers, observed, own, s.Log)
		if now := s.link.remote(); anew && now != nil {
			now.Rouse() // whose paths failed from the port before
		}
		var err error
		if !slices.Equal(r.candidates, last) {
			err = s.say(ctx, m, r.candidates)
			wake.After(ctx, knockTime)
		}
		s.Log.Debug("looked for where we may be reached", "port", s.link.tunnel.ListenPort(), "candidates", r.candidates, "nat", r.finding.Kind, "err", err)
		if err == nil {
			s.link.invite(m)
		}
		return outcome{apply: func() error {
			if err == nil {
				s.said = said{m, r.candidates}
			}
			s.set(func(c *localapi.Connection) {
				c.NAT = string(r.finding.Kind)
				s.outlook.ours, s.outlook.asked, s.outlook.refused = r.finding, r.asked, err
			})
			if next := s.lookAgain; next != nil {
				s.lookAgain = nil
				s.lookAround(*next)
			}
			return nil
		}}
	})
}

// say tells the gateway where a member may be reached. A call that hangs is made
// once more, by a new connection.
func (s *Session) say(ctx context.Context, m *member, candidates []string) error {
	first, cancel := context.WithTimeout(ctx, hangTime)
	defer cancel()
	err := s.cluster.SetCandidates(first, m.Namespace, m.Peer, candidates)
	if err == nil || first.Err() == nil || ctx.Err() != nil {
		return err
	}
	s.cluster.Redial()
	return s.cluster.SetCandidates(ctx, m.Namespace, m.Peer, candidates)
}

// said is what the gateway was told last of where a member may be reached.
type said struct {
	of         *member
	candidates []string
}
