package claims

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"podnet.dev/dnsproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a cluster's DNS: names to addresses, and back.
type server struct {
	mu    sync.Mutex
	names map[string][]string // name to what it has: addresses, or behind -> a CNAME's target
	ptr   map[string][]string // address to names
	rcode int
	err   error
	asked int
	hold  chan struct{} // nil: answers at once
}

func (s *server) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	s.mu.Lock()
	s.asked++
	hold, err, rcode := s.hold, s.err, s.rcode
	name := q.Question[0].Name
	var texts []string
	a, reverse := dnsproxy.ParseReverse(name)
	if reverse {
		for _, t := range s.ptr[a.String()] {
			texts = append(texts, name+" 5 IN PTR "+t)
		}
	} else {
		owner := name
		for _, t := range s.names[name] {
			kind := "A"
			if target, is := strings.CutPrefix(t, "->"); is {
				texts = append(texts, owner+" 5 IN CNAME "+target)
				owner = target // of what comes next
				continue
			} else if netip.MustParseAddr(t).Is6() {
				kind = "AAAA"
			}
			texts = append(texts, owner+" 5 IN "+kind+" "+t)
		}
	}
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.Rcode = rcode
	for _, t := range texts {
		rr, err := dns.NewRR(t)
		if err != nil {
			return nil, err
		}
		if h := rr.Header().Rrtype; h == q.Question[0].Qtype || h == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(texts) == 0 && rcode == dns.RcodeSuccess {
		m.Rcode = dns.RcodeNameError
	}
	return m, nil
}

func newServer() *server {
	return &server{
		names: map[string][]string{
			"web.shop.svc.cluster.test.":              {"10.96.0.5", "fd00::5"},
			"10-244-0-17.web.shop.svc.cluster.test.":  {"10.244.0.17"},
			"both.shop.svc.cluster.test.":             {"10.244.0.20"},
			"stale.shop.svc.cluster.test.":            {"10.244.0.99"},
			"elsewhere.shop.svc.cluster.test.":        {"->node.example.", "192.0.2.7"},
			"shop.svc.cluster.test.":                  {"10.244.0.66"},
			"10-244-0-30.other.pay.svc.cluster.test.": {"10.244.0.30"},
		},
		ptr: map[string][]string{
			"10.96.0.5":   {"web.shop.svc.cluster.test."},
			"fd00::5":     {"WEB.shop.svc.cluster.test."},
			"10.244.0.17": {"10-244-0-17.web.shop.svc.cluster.test."},
			"10.244.0.20": {"both.shop.svc.cluster.test.", "both.pay.svc.cluster.test."},
			"10.244.0.21": {"stale.shop.svc.cluster.test."},
			"10.244.0.30": {"10-244-0-30.other.pay.svc.cluster.test."},
			"10.244.0.66": {"shop.svc.cluster.test."},
			"10.244.0.67": {"web.shop.svc.cluster.test.evil.example."},
			"10.244.0.68": {"web.workshop.svc.cluster.test."},
			"192.0.2.7":   {"elsewhere.shop.svc.cluster.test."},
			"172.18.0.2":  {"node1.lan."},
		},
	}
}

var alice, bob = netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.3")

// alice6 is alice's other address.
var alice6 = netip.MustParseAddr("fd70:6f64:6e65:7400::2")

func newBook(s *server, lost func()) *Book {
	return New(Config{Server: s, Domain: "cluster.test", Namespace: "shop", Lost: lost})
}

// learn is what a Book says of an address once it knows.
func learn(t *testing.T, b *Book, a string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b.Settle(ctx, alice, []netip.Addr{netip.MustParseAddr(a)})
	belongs, known := b.Belongs(alice, netip.MustParseAddr(a))
	if !known {
		t.Fatalf("%s is not known", a)
	}
	return belongs
}

func TestWhoseAddress(t *testing.T) {
	b := newBook(newServer(), nil)
	for a, want := range map[string]bool{
		"10.96.0.5":        true,  // a Service
		"::ffff:10.96.0.5": true,  // the same
		"fd00::5":          true,  // and by IPv6, its name in capitals
		"10.244.0.17":      true,  // an endpoint
		"10.244.0.20":      false, // another namespace says that it is its as well
		"10.244.0.21":      false, // the name leads elsewhere by now
		"10.244.0.30":      false, // another namespace's
		"10.244.0.66":      false, // the namespace's own name is no Service
		"10.244.0.67":      false, // a name that only begins like one of ours
		"10.244.0.68":      false, // and one that only ends like it
		"192.0.2.7":        false, // by way of a CNAME
		"172.18.0.2":       false, // a node
		"10.244.0.200":     false, // nobody's
	} {
		if got := learn(t, b, a); got != want {
			t.Errorf("%s belongs to the namespace: %v", a, got)
		}
	}
	all := b.Addresses()
	slices.SortFunc(all, netip.Addr.Compare)
	if len(all) != 3 {
		t.Errorf("the namespace's addresses are %v", all)
	}
}

func TestNothingIsKnownAtFirst(t *testing.T) {
	s := newServer()
	s.hold = make(chan struct{})
	b := newBook(s, nil)
	web := netip.MustParseAddr("10.96.0.5")
	for range 3 {
		if belongs, known := b.Belongs(alice, web); belongs || known {
			t.Fatal("known before anybody answered")
		}
	}
	close(s.hold)
	if !learn(t, b, "10.96.0.5") {
		t.Error("not ours")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != 2 { // PTR, and A
		t.Errorf("%d questions for one address", s.asked)
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	for name, spoil := range map[string]func(*server){
		"silent":   func(s *server) { s.err = errors.New("no answer") },
		"SERVFAIL": func(s *server) { s.rcode = dns.RcodeServerFailure },
		"REFUSED":  func(s *server) { s.rcode = dns.RcodeRefused },
	} {
		s := newServer()
		now := time.Now()
		lost := 0
		b := newBook(s, func() { lost++ })
		b.now = func() time.Time { return now }
		learn(t, b, "10.96.0.5")
		s.mu.Lock()
		spoil(s)
		s.mu.Unlock()
		web := netip.MustParseAddr("10.96.0.5")
		for passed := time.Duration(0); passed < Trust; passed += 30 * time.Second {
			b.mu.Lock()
			now = now.Add(30 * time.Second)
			b.mu.Unlock()
			if passed+30*time.Second <= Trust {
				if belongs, known := b.Belongs(alice, web); !belongs || !known {
					t.Errorf("%s: gone after %v", name, passed)
				}
			}
			settleAll(b)
			b.Sweep()
		}
		b.mu.Lock()
		now = now.Add(time.Second)
		b.mu.Unlock()
		b.Sweep()
		if belongs, _ := b.Belongs(alice, web); belongs || lost != 1 {
			t.Errorf("%s: believed for ever: %v, lost %d times", name, belongs, lost)
		}
		settleAll(b)
	}
}

// settleAll waits for every question under way.
func settleAll(b *Book) {
	for {
		b.mu.Lock()
		var wait chan struct{}
		for _, v := range b.known {
			if v.asking != nil {
				wait = v.asking
			}
		}
		b.mu.Unlock()
		if wait == nil {
			return
		}
		<-wait
	}
}

func TestAddressThatIsLost(t *testing.T) {
	s := newServer()
	now := time.Now()
	lost := make(chan struct{}, 8)
	b := newBook(s, func() { lost <- struct{}{} })
	b.now = func() time.Time { return now }
	if !learn(t, b, "10.244.0.17") {
		t.Fatal("not ours")
	}
	s.mu.Lock()
	s.ptr["10.244.0.17"] = []string{"10-244-0-17.other.pay.svc.cluster.test."}
	s.mu.Unlock()
	pod := netip.MustParseAddr("10.244.0.17")
	if belongs, _ := b.Belongs(alice, pod); !belongs {
		t.Error("asked again at once")
	}
	b.mu.Lock()
	now = now.Add(Fresh)
	b.mu.Unlock()
	b.Belongs(alice, pod) // begins to ask, and still says what it knows
	settleAll(b)
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody is told")
	}
	if belongs, known := b.Belongs(alice, pod); belongs || !known {
		t.Errorf("still ours: %v, %v", belongs, known)
	}
}

func TestScan(t *testing.T) {
	s := newServer()
	s.hold = make(chan struct{})
	b := newBook(s, nil)
	a := netip.MustParseAddr("10.1.0.0")
	for range 10_000 {
		a = a.Next()
		b.Belongs(alice, a)
		b.Belongs(alice6, a.Next())
	}
	b.mu.Lock()
	under := b.total
	b.mu.Unlock()
	if under != 2*atOncePeer {
		t.Errorf("%d questions of one peer are under way", under)
	}
	if _, known := b.Belongs(bob, netip.MustParseAddr("10.96.0.5")); known {
		t.Error("known already")
	}
	b.mu.Lock()
	under = b.total
	b.mu.Unlock()
	if under != 2*atOncePeer+1 {
		t.Error("one peer's scan keeps another one waiting")
	}
	close(s.hold)
	settleAll(b)
	if !learn(t, b, "10.96.0.5") {
		t.Error("not ours")
	}
}

// TestPatientScan has one peer ask about more addresses than are remembered, all of
// which are answered: what belongs to the namespace is known to the others as before.
func TestPatientScan(t *testing.T) {
	b := newBook(newServer(), nil)
	if !learn(t, b, "10.96.0.5") {
		t.Fatal("not ours")
	}
	a := netip.MustParseAddr("10.1.0.0")
	for range maxAddresses + 100 {
		a = a.Next()
		b.Settle(t.Context(), alice, []netip.Addr{a})
	}
	if belongs, known := b.Belongs(bob, netip.MustParseAddr("10.96.0.5")); !belongs || !known {
		t.Errorf("what was known is not: %v, %v", belongs, known)
	}
	fresh := netip.MustParseAddr("10.244.0.17")
	b.Settle(t.Context(), bob, []netip.Addr{fresh})
	if belongs, known := b.Belongs(bob, fresh); !belongs || !known {
		t.Errorf("another peer's address cannot be known: %v, %v", belongs, known)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.known); n > maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestWhatNobodyNeedsIsForgotten(t *testing.T) {
	b := newBook(newServer(), nil)
	now := time.Now()
	b.now = func() time.Time { return now }
	learn(t, b, "10.96.0.5")
	b.mu.Lock()
	now = now.Add(unused + time.Second)
	b.mu.Unlock()
	b.Sweep()
	if n := len(b.Addresses()); n != 0 {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestExchangerSettlesFirst(t *testing.T) {
	s := newServer()
	b := newBook(s, nil)
	q := new(dns.Msg)
	q.SetQuestion("web.shop.svc.cluster.test.", dns.TypeA)
	if _, err := b.Exchanger(s, 5*time.Second).Exchange(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if belongs, known := b.Belongs(alice, netip.MustParseAddr("10.96.0.5")); !belongs || !known {
		t.Error("who has learned an address cannot go there yet")
	}
	q.SetQuestion("10-244-0-30.other.pay.svc.cluster.test.", dns.TypeA)
	if _, err := b.Exchanger(s, 5*time.Second).Exchange(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[netip.MustParseAddr("10.244.0.30")] != nil {
		t.Error("another namespace's name was asked about")
	}
}

// FuzzAnswers has the cluster's DNS server say anything: an address belongs to the
// namespace only if its names do, all of those that are the cluster's.
func FuzzAnswers(f *testing.F) {
	a := netip.MustParseAddr("10.96.0.5")
	say := func(text string) []byte {
		m := new(dns.Msg)
		m.SetQuestion("5.0.96.10.in-addr.arpa.", dns.TypePTR)
		m.Response = true
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = []dns.RR{rr}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(say("5.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.test."), say("WEB.shop.svc.cluster.test. 5 IN A 10.96.0.5"))
	f.Add(say("5.0.96.10.in-addr.arpa. 5 IN PTR till.pay.svc.cluster.test."), say("till.pay.svc.cluster.test. 5 IN A 10.96.0.5"))
	f.Add(say("5.0.96.10.in-addr.arpa. 5 IN PTR shop.svc.cluster.test."), []byte{})
	f.Fuzz(func(t *testing.T, back, there []byte) {
		var first, second dns.Msg
		if first.Unpack(back) != nil || second.Unpack(there) != nil {
			return
		}
		b := New(Config{Domain: "cluster.test", Namespace: "shop", Server: dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
			if q.Question[0].Qtype == dns.TypePTR {
				return &first, nil
			}
			return &second, nil
		})})
		belongs, err := b.look(t.Context(), a)
		if err != nil || !belongs {
			return
		}
		ours := false
		for _, rr := range first.Answer {
			if ptr, ok := rr.(*dns.PTR); ok {
				name := strings.ToLower(ptr.Ptr)
				in := strings.HasSuffix(name, ".shop.svc.cluster.test.")
				if ours = ours || in; !in && strings.HasSuffix(name, ".cluster.test.") {
					t.Errorf("%s is %s", a, name)
				}
			}
		}
		if !ours || len(second.Answer) == 0 {
			t.Errorf("%s belongs by %v and %v", a, first.Answer, second.Answer)
		}
	})
}
