package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what the peers of one owner have together. Every peer that has
// no owner is its own.
type Limits struct {
	// Connections are open TCP connections, those being opened included; 0: no limit.
	Connections int
	// Opening are TCP connections that are being opened, Datagrams flows of UDP and
	// pings. 0 means 512 of each (security.md, section 4).
	Opening, Datagrams int
	// Rate is how many flows may begin in a second, and half of how many may at
	// once; 0: no limit.
	Rate int
	// Bytes is the payload in bytes a second, each way; 0: no limit.
	Bytes int
}

func (l Limits) withDefaults() Limits {
	if l.Opening == 0 {
		l.Opening = 512
	}
	if l.Datagrams == 0 {
		l.Datagrams = 512
	}
	return l
}

// Refusal is why there is no room for a flow.
type Refusal uint8

const (
	admitted        Refusal = iota
	OverConnections         // of the owner: Limits.Connections
	OverOpening             // likewise
	OverDatagrams           // likewise
	OverRate                // likewise
	OverFlows               // of all owners: Options.MaxFlows
	OverMemory              // SetFull
	WasShed                 // a flow that was open: Shed
	refusals        = iota
)

func (r Refusal) String() string {
	return [refusals]string{"", "connections", "opening", "datagrams", "rate", "flows", "memory", "shed"}[r]
}

// Refusals are all of them.
func Refusals() []Refusal {
	return []Refusal{OverConnections, OverOpening, OverDatagrams, OverRate, OverFlows, OverMemory, WasShed}
}

// Usage is what an owner has and has had since its first flow. It is kept for an
// hour after the owner's last peer.
type Usage struct {
	Owner                           string
	Connections, Opening, Datagrams int
	BytesUp, BytesDown              uint64 // payload from and to the owner's peers
	Refused                         map[Refusal]uint64
}

const (
	// remembered is how long an account is kept whose owner has no peer any more,
	// so that whoever reads totals sees the last of them.
	remembered = time.Hour
	// forgotten is the same for the account of a peer without an owner.
	forgotten = 10 * time.Second
	// sayAgain is how often the log says that an owner is at a limit.
	sayAgain = time.Minute
)

// owner names an account: by what SetOwners said, or by the peer's own address.
type owner struct {
	name string
	peer netip.Addr
}

// account is what one owner's flows have together.
type account struct {
	owner                   owner
	tcp, opening, datagrams atomic.Int64
	up, down                atomic.Uint64
	refused                 [refusals]atomic.Uint64
	said                    [refusals]atomic.Int64 // unix seconds, in the log
	used                    atomic.Int64           // seconds of clock at the last look

	begins           *rate.Limiter // nil: no limit
	upward, downward *rate.Limiter // nil: no limit
}

// accounts knows all.
type accounts struct {
	limits Limits

	mu     sync.Mutex
	owners map[netip.Addr]string
	all    map[owner]*account
}

func newAccounts(l Limits) *accounts {
	return &accounts{limits: l.withDefaults(), all: map[owner]*account{}}
}

// of is the account of a peer.
func (s *accounts) of(peer netip.Addr) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := owner{peer: peer}
	if name, ok := s.owners[peer]; ok {
		o = owner{name: name}
	}
	a := s.all[o]
	if a == nil {
		a = &account{owner: o}
		if r := s.limits.Rate; r > 0 {
			a.begins = rate.NewLimiter(rate.Limit(r), 2*r)
		}
		if b := s.limits.Bytes; b > 0 {
			burst := max(b, window) // one turn moves as much as that
			a.upward, a.downward = rate.NewLimiter(rate.Limit(b), burst), rate.NewLimiter(rate.Limit(b), burst)
		}
		s.all[o] = a
	}
	a.used.Store(clock(time.Now()))
	return a
}

// sweep forgets accounts that nobody will ask for.
func (s *accounts) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	here := make(map[string]bool, len(s.owners))
	for _, name := range s.owners {
		here[name] = true
	}
	for o, a := range s.all {
		keep := forgotten
		if o.name != "" {
			keep = remembered
		}
		if here[o.name] && o.name != "" || a.tcp.Load() > 0 || a.datagrams.Load() > 0 {
			a.used.Store(clock(now))
		} else if time.Duration(clock(now)-a.used.Load())*time.Second > keep {
			delete(s.all, o)
		}
	}
}

func (s *accounts) list() []*account {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*account, 0, len(s.all))
	for _, a := range s.all {
		all = append(all, a)
	}
	return all
}

// connect takes a place for a TCP connection that is being opened. One call at a
// time: whoever holds the table's mutex.
func (a *account) connect(l Limits) Refusal {
	switch {
	case l.Connections > 0 && a.tcp.Load() >= int64(l.Connections):
		return OverConnections
	case a.opening.Load() >= int64(l.Opening):
		return OverOpening
	}
	a.tcp.Add(1)
	a.opening.Add(1)
	return admitted
}

// begin asks whether one more flow may begin now.
func (a *account) begin(now time.Time) bool { return a.begins == nil || a.begins.AllowN(now, 1) }

// moved accounts for n bytes and waits, where there is a limit, until they were
// due, or gone is closed.
func moved(total *atomic.Uint64, pace *rate.Limiter, n int, gone <-chan struct{}) {
	total.Add(uint64(n))
	if pace == nil || n == 0 {
		return
	}
	d := pace.ReserveN(time.Now(), n).Delay()
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-gone:
	}
}

// fits accounts for n bytes that are lost where there is a limit and they are
// beyond it.
func fits(total *atomic.Uint64, pace *rate.Limiter, n int) bool {
	if pace != nil && !pace.AllowN(time.Now(), min(n, pace.Burst())) {
		return false
	}
	total.Add(uint64(n))
	return true
}

// refused counts a flow for which there was no room, and says so now and then.
func (f *Forwarder) refused(a *account, why Refusal) {
	f.counters.overLimit[why].Add(1)
	a.refused[why].Add(1)
	now := time.Now().Unix()
	if last := a.said[why].Load(); now-last >= int64(sayAgain/time.Second) && a.said[why].CompareAndSwap(last, now) {
		if a.owner.name != "" {
			f.log.Warn("limit reached", "user", a.owner.name, "limit", why.String())
		} else {
			f.log.Warn("limit reached", "peer", a.owner.peer, "limit", why.String())
		}
	}
}

// SetOwners says which peers, by their tunnel addresses, belong together, and by
// what name. Flows that are open count for whom they were opened.
func (f *Forwarder) SetOwners(owners map[netip.Addr]string) {
	f.accounts.mu.Lock()
	defer f.accounts.mu.Unlock()
	f.accounts.owners = owners
}

// Usage is what each owner has that SetOwners has named, in no order.
func (f *Forwarder) Usage() []Usage {
	var all []Usage
	for _, a := range f.accounts.list() {
		if a.owner.name == "" {
			continue
		}
		u := Usage{
			Owner:       a.owner.name,
			Connections: int(a.tcp.Load()), Opening: int(a.opening.Load()), Datagrams: int(a.datagrams.Load()),
			BytesUp: a.up.Load(), BytesDown: a.down.Load(), Refused: map[Refusal]uint64{},
		}
		for _, r := range Refusals() {
			if n := a.refused[r].Load(); n > 0 {
				u.Refused[r] = n
			}
		}
		all = append(all, u)
	}
	return all
}

// SetFull says whether there is no memory for further flows: then none begins.
func (f *Forwarder) SetFull(full bool) { f.full.Store(full) }

// Shed resets up to n connections, the newest of whoever has the most, and returns
// how many. Of who has less than least it resets none.
func (f *Forwarder) Shed(n, least int) int {
	var largest *account
	for _, a := range f.accounts.list() {
		if largest == nil || a.tcp.Load() > largest.tcp.Load() {
			largest = a
		}
	}
	if largest == nil || largest.tcp.Load() < int64(least) {
		return 0
	}
	shed := f.tcp.newest(largest, n)
	for _, fl := range shed {
		f.refused(largest, WasShed)
		fl.interrupt()
	}
	return len(shed)
}

// Open are the flows that a peer has.
type Open struct{ TCP, Datagrams int }

// OpenFlows are those of each peer that has any.
func (f *Forwarder) OpenFlows() map[netip.Addr]Open {
	all := map[netip.Addr]Open{}
	for _, fl := range f.tcp.all() {
		o := all[fl.key.src.Addr()]
		o.TCP++
		all[fl.key.src.Addr()] = o
	}
	for _, fl := range f.dgram.all() {
		o := all[fl.key.src.Addr()]
		o.Datagrams++
		all[fl.key.src.Addr()] = o
	}
	return all
}
