package dnsproxy

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// How long answers are kept, whatever their records say. Short, because
// cluster addresses change by the second and an old one behind a dead tunnel
// helps nobody.
const (
	maxPositive = 30 * time.Second
	maxNegative = 30 * time.Second
	minNegative = 5 * time.Second
	failureTime = 1 * time.Second
	cacheSize   = 4096 // answers kept
	// cacheBytes is what they take at most, about: one of 64 KiB has 4,000 records.
	cacheBytes = 16 << 20
)

// Cache is an Exchanger that remembers what another one said and asks it once
// for many who ask the same at the same time.
type Cache struct {
	next Exchanger
	now  func() time.Time

	flights singleflight.Group

	mu      sync.Mutex
	entries map[cacheKey]cached
	size    int    // of all entries
	epoch   uint64 // of the last Flush: answers to older questions are not kept
}

var _ Exchanger = (*Cache)(nil)

// cacheKey is what makes two questions the same. Only whole answers are kept
// (the forwarder has followed TC), so the client's size plays no part.
type cacheKey struct {
	name   string
	qtype  uint16
	qclass uint16
	do, cd bool
}

type cached struct {
	msg     *dns.Msg // never changed
	server  netip.AddrPort
	stored  time.Time
	expires time.Time
	size    int
}

// NewCache puts a cache before next.
func NewCache(next Exchanger) *Cache {
	return &Cache{next: next, now: time.Now, entries: map[cacheKey]cached{}}
}

// source is where an answer is from.
type source struct {
	server netip.AddrPort // zero: unknown
	cached bool
}

// teller is an Exchanger that knows which server has answered.
type teller interface {
	tell(ctx context.Context, q *dns.Msg) (*dns.Msg, netip.AddrPort, error)
}

// Exchange answers from memory, else asks next.
func (c *Cache) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	m, _, err := c.ask(ctx, q)
	return m, err
}

// Known answers from memory, or gives nil.
func (c *Cache) Known(q *dns.Msg) *dns.Msg {
	m, _, _ := c.lookup(keyOf(q))
	if m == nil {
		return nil
	}
	return copyFor(q, m)
}

func (c *Cache) ask(ctx context.Context, q *dns.Msg) (*dns.Msg, source, error) {
	key := keyOf(q)
	m, server, epoch := c.lookup(key)
	if m != nil {
		return copyFor(q, m), source{server, true}, nil
	}
	// The epoch is part of the flight's name: who asks after a Flush never
	// gets the answer to a question from before it.
	v, err, _ := c.flights.Do(key.flight(epoch), func() (any, error) {
		lower := *q
		lower.Question = []dns.Question{{Name: key.name, Qtype: key.qtype, Qclass: key.qclass}}
		m, server, err := c.askNext(ctx, &lower)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, ErrNoServers) {
				c.store(key, Refuse(dns.RcodeServerFailure), server, epoch)
			}
			return nil, err
		}
		c.store(key, m, server, epoch)
		return cached{msg: m, server: server}, nil
	})
	if err != nil {
		return nil, source{}, err
	}
	got := v.(cached)
	return copyFor(q, got.msg), source{server: got.server}, nil
}

func (c *Cache) askNext(ctx context.Context, q *dns.Msg) (*dns.Msg, netip.AddrPort, error) {
	if t, ok := c.next.(teller); ok {
		return t.tell(ctx, q)
	}
	m, err := c.next.Exchange(ctx, q)
	return m, netip.AddrPort{}, err
}

// Flush forgets everything, answers on their way included.
func (c *Cache) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.entries)
	c.size = 0
}

// Len is the number of answers kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func keyOf(q *dns.Msg) cacheKey {
	question := q.Question[0]
	opt := q.IsEdns0()
	return cacheKey{
		name:  Canonical(question.Name),
		qtype: question.Qtype, qclass: question.Qclass,
		do: opt != nil && opt.Do(), cd: q.CheckingDisabled,
	}
}

func (k cacheKey) flight(epoch uint64) string {
	flags := byte(0)
	if k.do {
		flags |= 1
	}
	if k.cd {
		flags |= 2
	}
	b := make([]byte, 0, len(k.name)+13)
	b = append(b, flags, byte(k.qtype>>8), byte(k.qtype), byte(k.qclass>>8), byte(k.qclass))
	for shift := 0; shift < 64; shift += 8 {
		b = append(b, byte(epoch>>shift))
	}
	return string(append(b, k.name...))
}

// lookup gives a copy with the time it lay here taken off its TTLs, or nil.
func (c *Cache) lookup(key cacheKey) (*dns.Msg, netip.AddrPort, uint64) {
	now := c.now()
	c.mu.Lock()
	e, ok := c.entries[key]
	if ok && !now.Before(e.expires) {
		c.dropLocked(key)
		ok = false
	}
	epoch := c.epoch
	c.mu.Unlock()
	if !ok {
		return nil, netip.AddrPort{}, epoch
	}
	m := e.msg.Copy()
	age := uint32(now.Sub(e.stored) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			if h.Rrtype != dns.TypeOPT {
				h.Ttl = max(h.Ttl, age+1) - age // at least 1
			}
		}
	}
	return m, e.server, epoch
}

func (c *Cache) store(key cacheKey, m *dns.Msg, server netip.AddrPort, epoch uint64) {
	life := lifetime(m)
	if life <= 0 {
		return
	}
	now := c.now()
	e := cached{msg: m.Copy(), server: server, stored: now, expires: now.Add(life), size: sizeOf(m)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	c.dropLocked(key)
	if len(c.entries) >= cacheSize || c.size+e.size > cacheBytes {
		c.evictLocked(now)
	}
	c.entries[key] = e
	c.size += e.size
}

// sizeOf is about how many bytes an answer takes: what its records say, and themselves.
func sizeOf(m *dns.Msg) int {
	const record = 128
	return m.Len() + record*(len(m.Answer)+len(m.Ns)+len(m.Extra))
}

// dropLocked forgets an answer, if there is one.
func (c *Cache) dropLocked(key cacheKey) {
	c.size -= c.entries[key].size
	delete(c.entries, key)
}

// evictLocked makes room: what has expired, else an arbitrary eighth.
func (c *Cache) evictLocked(now time.Time) {
	for k, e := range c.entries {
		if !now.Before(e.expires) {
			c.dropLocked(k)
		}
	}
	for k := range c.entries {
		if len(c.entries) < cacheSize*7/8 && c.size <= cacheBytes*7/8 {
			return
		}
		c.dropLocked(k)
	}
}

// lifetime is how long an answer may be kept; 0: not at all.
func lifetime(m *dns.Msg) time.Duration {
	switch {
	case m.Truncated:
		return 0
	case m.Rcode == dns.RcodeServerFailure:
		return failureTime
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return 0
	case m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0:
		return min(minTTL(m.Answer), maxPositive)
	}
	// NXDOMAIN and NODATA live as long as their SOA says (RFC 2308 section
	// 5); without one there is no promise.
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			ttl := time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			if len(m.Answer) > 0 {
				ttl = min(ttl, minTTL(m.Answer))
			}
			return min(max(ttl, minNegative), maxNegative)
		}
	}
	return 0
}

func minTTL(rrs []dns.RR) time.Duration {
	ttl := rrs[0].Header().Ttl
	for _, rr := range rrs[1:] {
		ttl = min(ttl, rr.Header().Ttl)
	}
	return time.Duration(ttl) * time.Second
}

// copyFor is m as the answer to q. Flights share their answer, so the header
// and question that differ go into a copy.
func copyFor(q, m *dns.Msg) *dns.Msg {
	out := *m
	out.Id = q.Id
	out.Question = q.Question
	return &out
}
