// Package claims tells whether an address belongs to one namespace of the cluster, by
// what the cluster's own DNS server says. It is how a gateway that may read nothing
// of the Kubernetes API knows where its peers may go: that server watches Services
// and EndpointSlices itself, and every pod believes it.
//
// An address belongs to the namespace when its PTR records name Services of it, or
// endpoints of theirs, and no other namespace's, and such a name leads back to the
// address. What no Service leads to belongs to nobody.
package claims

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

const (
	// Fresh is how long a verdict counts before the server is asked again, by
	// whoever needs it next. CoreDNS itself keeps its answers for up to 30 s.
	Fresh = 5 * time.Second
	// Trust is how long a verdict counts while the server does not answer.
	Trust = 5 * time.Minute
	// unused is how long what nobody asks about is remembered.
	unused = time.Minute

	// maxAddresses bounds what is remembered, and atOnce how many questions are
	// under way, in all and for each of a peer's two addresses: a laptop that scans a
	// network shall not keep the others waiting.
	maxAddresses = 8192
	atOnce       = 64
	atOncePeer   = 16

	// askTime is how long one address may take: two questions.
	askTime = 4 * time.Second
	// settled is how many addresses of an answer are asked about before it goes on.
	settled = 8
	// confirmed is how many of an address's names are asked to lead back to it.
	confirmed = 4
)

// Config of a Book. Server, Domain and Namespace are required.
type Config struct {
	// Server is the cluster's own DNS server. It should be asked over TCP, whose
	// answers nobody beside the path can forge.
	Server dnsproxy.Exchanger
	// Domain is the cluster's zone, such as cluster.local.
	Domain, Namespace string
	// Lost is told when an address belongs to the namespace no more. It must not
	// block.
	Lost func()
	Log  *slog.Logger
}

// Book remembers what was found out. Its methods may be called from any goroutine.
type Book struct {
	cfg  Config
	zone string // of the cluster, canonical
	own  string // below which the namespace's names are, canonical
	now  func() time.Time

	mu     sync.Mutex
	known  map[netip.Addr]*verdict
	asking map[netip.Addr]int // by peer
	total  int
}

// verdict is what is known of an address.
type verdict struct {
	said    bool // there is one
	belongs bool
	at      time.Time     // when the server said so
	tried   time.Time     // when it was asked last
	used    time.Time     // when somebody wanted to know
	asking  chan struct{} // closed when the question under way is over; nil: there is none
}

// New makes an empty Book.
func New(c Config) *Book {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Lost == nil {
		c.Lost = func() {}
	}
	zone := dnsproxy.Canonical(c.Domain)
	return &Book{cfg: c, zone: zone, own: dnsproxy.Canonical(c.Namespace + ".svc." + c.Domain), now: time.Now,
		known: map[netip.Addr]*verdict{}, asking: map[netip.Addr]int{}}
}

// Belongs says at once what is known of an address; known is false when nothing is
// yet. Where the answer is missing or old the server is asked, for that peer.
func (b *Book) Belongs(peer, a netip.Addr) (belongs, known bool) {
	a = a.Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.lookLocked(peer, a)
	if v == nil {
		return false, false
	}
	return v.belongs, v.said
}

// Settle asks about addresses for a peer and returns when all are known, or ctx ends.
func (b *Book) Settle(ctx context.Context, peer netip.Addr, all []netip.Addr) {
	for _, a := range all {
		b.mu.Lock()
		v := b.lookLocked(peer, a.Unmap())
		var wait chan struct{}
		if v != nil && !v.said {
			wait = v.asking
		}
		b.mu.Unlock()
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
	}
}

// Addresses are those that belong to the namespace, as far as anybody has asked.
func (b *Book) Addresses() []netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []netip.Addr
	for a, v := range b.known {
		if v.said && v.belongs {
			all = append(all, a)
		}
	}
	return all
}

// Sweep forgets what nobody has asked about for a while, and what was not confirmed
// for longer than it is to be trusted. It is to be called every few seconds.
func (b *Book) Sweep() {
	b.mu.Lock()
	lost := false
	now := b.now()
	for a, v := range b.known {
		if v.said && now.Sub(v.at) > Trust {
			lost = lost || v.belongs
			v.said, v.belongs = false, false
		}
		if v.asking == nil && now.Sub(v.used) > unused {
			delete(b.known, a)
		}
	}
	b.mu.Unlock()
	if lost {
		b.cfg.Lost()
	}
}

// lookLocked is the verdict on an address, perhaps without anything said yet; nil
// when there is no room for it.
func (b *Book) lookLocked(peer, a netip.Addr) *verdict {
	now := b.now()
	v := b.known[a]
	if v == nil {
		if !b.mayAskLocked(peer) || !b.roomLocked() {
			return nil
		}
		v = &verdict{}
		b.known[a] = v
	}
	v.used = now
	if v.asking == nil && now.Sub(v.tried) >= Fresh && b.mayAskLocked(peer) {
		v.asking, v.tried = make(chan struct{}), now
		b.asking[peer]++
		b.total++
		go b.ask(peer, a, v)
	}
	return v
}

// roomLocked reports whether one address more can be remembered. Any that is not the
// namespace's makes room: a scan finds nearly nothing else.
func (b *Book) roomLocked() bool {
	if len(b.known) < maxAddresses {
		return true
	}
	for a, v := range b.known {
		if !v.belongs && v.asking == nil {
			delete(b.known, a)
			return true
		}
	}
	return false
}

func (b *Book) mayAskLocked(peer netip.Addr) bool {
	return b.total < atOnce && (peer == nobody || b.asking[peer] < atOncePeer)
}

// ask finds out about one address.
func (b *Book) ask(peer, a netip.Addr, v *verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	belongs, err := b.look(ctx, a)
	b.mu.Lock()
	close(v.asking)
	v.asking = nil
	b.total--
	if b.asking[peer]--; b.asking[peer] == 0 {
		delete(b.asking, peer)
	}
	lost := false
	if err == nil {
		lost = v.belongs && !belongs
		v.said, v.belongs, v.at = true, belongs, b.now()
	}
	b.mu.Unlock()
	if err != nil {
		b.cfg.Log.Debug("the cluster's DNS server does not say whose an address is", "addr", a, "err", err)
	}
	if lost {
		b.cfg.Lost()
	}
}

// look asks the server whose an address is.
func (b *Book) look(ctx context.Context, a netip.Addr) (bool, error) {
	reverse, err := dns.ReverseAddr(a.String())
	if err != nil {
		return false, err
	}
	resp, err := b.question(ctx, reverse, dns.TypePTR)
	if err != nil {
		return false, err
	}
	var ours []string
	for _, rr := range resp.Answer {
		ptr, ok := rr.(*dns.PTR)
		if !ok {
			continue
		}
		switch name := dnsproxy.Canonical(ptr.Ptr); {
		case dnsproxy.Under(name, b.own) && name != b.own:
			ours = append(ours, name)
		case dnsproxy.Under(name, b.zone):
			return false, nil // another namespace has it, or has it as well
		}
	}
	qtype := dns.TypeA
	if a.Is6() {
		qtype = dns.TypeAAAA
	}
	for _, name := range ours[:min(len(ours), confirmed)] {
		resp, err := b.question(ctx, name, qtype)
		if err != nil {
			return false, err
		}
		if leadsTo(resp, name, a) {
			return true, nil
		}
	}
	return false, nil
}

// leadsTo reports whether an answer has an address for the very name: what a CNAME
// leads to is not the namespace's.
func leadsTo(resp *dns.Msg, name string, a netip.Addr) bool {
	for _, rr := range resp.Answer {
		if addr, ok := Address(rr); ok && addr == a && strings.EqualFold(rr.Header().Name, name) {
			return true
		}
	}
	return false
}

// Address is the address in an A or AAAA record.
func Address(rr dns.RR) (netip.Addr, bool) {
	var a netip.Addr
	var ok bool
	switch rr := rr.(type) {
	case *dns.A:
		a, ok = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		a, ok = netip.AddrFromSlice(rr.AAAA)
	}
	return a.Unmap(), ok
}

// question asks, and takes an answer that says neither yes nor no for none.
func (b *Book) question(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	resp, err := b.cfg.Server.Exchange(ctx, q)
	if err != nil {
		return nil, err
	}
	if resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError {
		return nil, &rcodeError{name, resp.Rcode}
	}
	return resp, nil
}

type rcodeError struct {
	name  string
	rcode int
}

func (e *rcodeError) Error() string { return e.name + ": " + dns.RcodeToString[e.rcode] }

// Exchanger asks next for a peer's questions, and finds out whose the addresses in the
// answers are before it hands them on, for as long as patience: who has just
// learned an address goes there next.
func (b *Book) Exchanger(next dnsproxy.Exchanger, patience time.Duration) dnsproxy.Exchanger {
	return dnsproxy.ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
		resp, err := next.Exchange(ctx, q)
		if err != nil {
			return nil, err
		}
		var all []netip.Addr
		for _, rr := range resp.Answer {
			if a, ok := Address(rr); ok && len(all) < settled && dnsproxy.Under(dnsproxy.Canonical(rr.Header().Name), b.own) {
				all = append(all, a)
			}
		}
		settle, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		b.Settle(settle, nobody, all)
		return resp, nil
	})
}

// nobody is for whom the Exchanger asks: the questions' own quota is kept before it.
var nobody netip.Addr
