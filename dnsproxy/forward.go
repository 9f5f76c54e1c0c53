package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ErrNoServers means that there is nobody to ask: no server is known, or none
// is there and the network says so at once.
var ErrNoServers = errors.New("no dns servers known")

// TryTimeout is how long one try at one server may take. Stub resolvers give
// up after 5 s, so two tries fit.
const TryTimeout = 2 * time.Second

// Dial opens a connection to a server: through the host's network or through
// a tunnel. network is "udp" or "tcp".
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// ForwarderConfig says whom to ask and how. Zero fields take the defaults.
type ForwarderConfig struct {
	// Servers are tried in order, beginning with the one that answered last.
	Servers []netip.AddrPort
	// Dial defaults to the host's network.
	Dial Dial
	// Timeout of one try; default TryTimeout.
	Timeout time.Duration
	// StreamsOnly asks over TCP at once.
	StreamsOnly bool
	Log         *slog.Logger
}

// Forwarder asks DNS servers. Questions in flight at the same time never
// share a UDP source port: A and AAAA from one port run into kube-proxy's
// conntrack race and stall for 5 s. TCP connections are kept for the next
// question.
type Forwarder struct {
	cfg  ForwarderConfig
	log  *slog.Logger
	good atomic.Int32 // index of the server that answered last
	udp  pool
	tcp  pool
}

var _ Exchanger = (*Forwarder)(nil)

// NewForwarder makes a forwarder; it opens nothing before the first question.
func NewForwarder(cfg ForwarderConfig) *Forwarder {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = TryTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Servers = slices.Clone(cfg.Servers)
	return &Forwarder{
		cfg: cfg,
		log: cfg.Log,
		udp: pool{dial: cfg.Dial, network: "udp", max: 64, idle: 3 * time.Second, uses: 100},
		tcp: pool{dial: cfg.Dial, network: "tcp", max: 8, idle: 5 * time.Second},
	}
}

// Close closes the idle connections. Questions in flight finish by
// themselves; later ones work and keep nothing.
func (f *Forwarder) Close() error {
	f.udp.close()
	f.tcp.close()
	return nil
}

// Exchange asks the servers, over UDP and again over TCP when the answer was
// truncated, two rounds at most. A server that says SERVFAIL, REFUSED or
// NOTIMP is passed over while another may know better.
func (f *Forwarder) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	m, _, err := f.tell(ctx, q)
	return m, err
}

// tell is Exchange and also says which server has answered.
func (f *Forwarder) tell(ctx context.Context, q *dns.Msg) (*dns.Msg, netip.AddrPort, error) {
	n := len(f.cfg.Servers)
	if n == 0 {
		return nil, netip.AddrPort{}, ErrNoServers
	}
	first := int(f.good.Load()) % n
	var last *dns.Msg
	var from netip.AddrPort // last
	var errs []error
	for try := range 2 * n {
		at := (first + try) % n
		if try >= n && last != nil {
			break // everybody has spoken; asking again will not change it
		}
		resp, err := f.ask(ctx, q, f.cfg.Servers[at].String())
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		switch resp.Rcode {
		case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented:
			last, from = resp, f.cfg.Servers[at]
			continue
		}
		f.good.Store(int32(at))
		return resp, f.cfg.Servers[at], nil
	}
	if last != nil {
		return last, from, nil
	}
	err := errors.Join(errs...)
	if !slices.ContainsFunc(errs, func(e error) bool { return !isRefused(e) }) {
		err = fmt.Errorf("%w: %w", ErrNoServers, err)
	}
	f.log.Debug("dns servers did not answer", "name", q.Question[0].Name, "err", err)
	return nil, netip.AddrPort{}, fmt.Errorf("ask %v for %s: %w", f.cfg.Servers, q.Question[0].Name, err)
}

func (f *Forwarder) ask(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	hop := hopQuery(q)
	if !f.cfg.StreamsOnly {
		resp, err := f.try(ctx, &f.udp, hop, server)
		if err != nil {
			return nil, err
		}
		if !resp.Truncated {
			return returned(q, resp), nil
		}
	}
	resp, err := f.try(ctx, &f.tcp, hop, server)
	if err != nil {
		return nil, err
	}
	return returned(q, resp), nil
}

// hopQuery is q as this hop sends it: own ID, own EDNS size.
func hopQuery(q *dns.Msg) *dns.Msg {
	hop := *q
	hop.Id = dns.Id()
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(UDPSize)
	if asked := q.IsEdns0(); asked != nil {
		opt.SetDo(asked.Do())
	}
	hop.Extra = []dns.RR{opt}
	return &hop
}

// returned is the hop's answer as the answer to q. Why the server could not say
// more is for the client as well (RFC 8914 section 3).
func returned(q, resp *dns.Msg) *dns.Msg {
	resp.Id = q.Id
	resp.Question = q.Question
	resp.Extra = withoutHop(resp.Extra)
	return resp
}

// try asks once. A kept connection may have died meanwhile, so its failure costs
// nothing: the next one is fresh. One whose far end has gone without a word, as a
// pod does, has half the time to show it, and takes the others to there with it.
func (f *Forwarder) try(ctx context.Context, p *pool, hop *dns.Msg, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	wire, err := hop.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack question: %w", err)
	}
	for {
		c, kept, err := p.get(ctx, server)
		if err != nil {
			return nil, err
		}
		turn, over := ctx, func() {}
		if kept {
			deadline, _ := ctx.Deadline()
			turn, over = context.WithTimeout(ctx, time.Until(deadline)/2)
		}
		resp, err := c.roundTrip(turn, wire, hop)
		over()
		if err == nil {
			p.put(c)
			return resp, nil
		}
		c.Close()
		// The socket's time-out and the context's are the same moment; which
		// of them shows first is chance.
		var ne net.Error
		late := errors.As(err, &ne) && ne.Timeout()
		switch {
		case kept && late && ctx.Err() == nil:
			p.forget(server)
		case late || ctx.Err() != nil:
			err, kept = context.DeadlineExceeded, false
			if errors.Is(ctx.Err(), context.Canceled) {
				err = context.Canceled
			}
		}
		if !kept {
			return nil, fmt.Errorf("%s %s: %w", p.network, server, err)
		}
	}
}

// roundTrip sends wire and waits for the answer to hop. Anything else that
// arrives is late or forged and is skipped.
func (c *pooled) roundTrip(ctx context.Context, wire []byte, hop *dns.Msg) (*dns.Msg, error) {
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.send(wire); err != nil {
		return nil, err
	}
	for {
		b, err := c.receive()
		if err != nil {
			return nil, err
		}
		resp := new(dns.Msg)
		if err := resp.Unpack(b); err != nil {
			if c.stream {
				return nil, fmt.Errorf("unpack answer: %w", err)
			}
			if len(b) < headerSize || !resp.Response || resp.Id != hop.Id || !resp.Truncated {
				continue
			}
			// Some servers cut in the middle of a record and set TC.
			return resp, nil
		}
		if answers(resp, hop) {
			return resp, nil
		}
	}
}

// answers says whether resp is the answer to hop. An error answer may come
// without a question.
func answers(resp, hop *dns.Msg) bool {
	if !resp.Response || resp.Id != hop.Id || resp.Opcode != hop.Opcode {
		return false
	}
	if len(resp.Question) == 0 {
		return resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError
	}
	got, want := resp.Question[0], hop.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
