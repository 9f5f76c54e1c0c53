package dnsproxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// keptQuestions is how many questions a Split remembers: some minutes of a busy
// browser's, and a few hundred KiB.
const keptQuestions = 500

// keptRecords is how many records of an answer it remembers: one may have thousands.
const keptRecords = 64

// Asked is a question of one of this machine's programs, and what it got.
type Asked struct {
	// Seq counts the questions of a Split from 1.
	Seq  uint64
	Time time.Time // when it came
	Explanation
}

// asked is what becomes an Asked when somebody wants to know.
type asked struct {
	at    time.Time
	q     dns.Question
	rcode int
	rrs   []dns.RR // shared: never changed
	trace trace
	took  time.Duration
}

func (a *asked) explain() Explanation {
	return Explanation{Name: a.q.Name, Type: dns.Type(a.q.Qtype).String(), Rcode: dns.RcodeToString[a.rcode],
		Answers: records(a.rrs), Class: a.trace.class.String(), Steps: a.trace.steps, Took: a.took}
}

// recent is the last questions, in memory only. The zero recent has none.
type recent struct {
	mu      sync.Mutex
	last    uint64 // how many there were; the n-th, from 1, is at (n-1)%keptQuestions
	ring    [keptQuestions]*asked
	changed chan struct{} // closed at the next one; nil: nobody waits
}

func (r *recent) add(a *asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.last%keptQuestions] = a
	r.last++
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// after is what came after the question since, and a channel that is closed when
// there is more.
func (r *recent) after(since uint64) (all []*asked, first uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	if since > r.last {
		since = 0
	}
	if r.last > keptQuestions {
		since = max(since, r.last-keptQuestions)
	}
	for n := since; n < r.last; n++ {
		all = append(all, r.ring[n%keptQuestions])
	}
	return all, since + 1, r.changed
}

// Asked is what this machine's programs have asked for of names that are this
// Split's to answer, oldest first: what came after the question since, as far as it
// is remembered. more is closed when there is more.
func (s *Split) Asked(since uint64) (all []Asked, more <-chan struct{}) {
	list, seq, more := s.recent.after(since)
	for _, a := range list {
		all = append(all, Asked{seq, a.at, a.explain()})
		seq++
	}
	return all, more
}

// ServeDNS implements Handler.
func (s *Split) ServeDNS(ctx context.Context, r *Request) *dns.Msg {
	a := &asked{at: time.Now(), q: r.Question()}
	m := s.serve(ctx, r, &a.trace)
	if a.trace.by == nil {
		return m // our own check whether the host asks here
	}
	a.took, a.rcode, a.rrs = time.Since(a.at), m.Rcode, m.Answer
	if len(a.rrs) > keptRecords {
		a.rrs = slices.Clone(a.rrs[:keptRecords])
	}
	a.trace.by.recent.add(a)
	return m
}
