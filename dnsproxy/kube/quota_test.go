package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// waterTorture has a peer ask for n names that do not exist, all at the same
// moment, and gives the answers.
func waterTorture(z *Zone, peer netip.Addr, n int) []*dns.Msg {
	all := make([]*dns.Msg, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { all[i] = ask(z, peer, fmt.Sprintf("x%d.shop.svc.cluster.local.", i), dns.TypeA) })
	}
	wg.Wait()
	return all
}

func explained(m *dns.Msg) *dns.EDNS0_EDE {
	if opt := m.IsEdns0(); opt != nil {
		return opt.Option[0].(*dns.EDNS0_EDE)
	}
	return new(dns.EDNS0_EDE)
}

// One peer's random names neither flood the cluster's server nor keep another
// peer from it.
func TestRandomNamesAreOnePeersAffair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		under, most, asked := 0, 0, 0
		z := newZone(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
			mu.Lock()
			under++
			asked++
			most = max(most, under)
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			under--
			mu.Unlock()
			m := new(dns.Msg)
			return m.SetRcode(q, dns.RcodeNameError), nil
		}))
		z.cfg.Visible = everybody
		z.accounts = newAccounts(Quota{AtOnce: 4, PerSecond: 20})

		refused := 0
		for _, m := range waterTorture(z, ada, 100) {
			switch {
			case m.Rcode == dns.RcodeServerFailure && explained(m).ExtraText == busy.text:
				refused++
			case m.Rcode != dns.RcodeNameError:
				t.Errorf("%v", m)
			}
		}
		if most != 4 || refused != 96 {
			t.Errorf("%d at once, %d refused, want 4 and 96", most, refused)
		}
		if m := ask(z, ada, "web.shop.svc.cluster.local.", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("what the watch knows: %v", m)
		}

		asked = 0
		began := time.Now()
		for range 40 {
			waterTorture(z, ada, 4)
		}
		if took := time.Since(began); asked != 160 || asked > 20+int(20*took.Seconds()) {
			t.Errorf("asked %d times in %v", asked, took)
		}
		began = time.Now()
		if m := ask(z, eve, "y.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeNameError || time.Since(began) != 100*time.Millisecond {
			t.Errorf("another peer, after %v: %v", time.Since(began), m)
		}
	})
}

// A name that the cluster's server cannot find out about makes that server no
// worse for other peers.
func TestDeadZoneIsOnePeersAffair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(t, dnsproxy.ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			if strings.HasPrefix(q.Question[0].Name, "dead.") {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			m := new(dns.Msg)
			m.SetReply(q)
			rr, _ := dns.NewRR(q.Question[0].Name + " 5 IN A 10.96.0.77")
			m.Answer = []dns.RR{rr}
			return m, nil
		}))
		z.cfg.Visible = everybody
		if m := ask(z, ada, "dead.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeNameError || explained(m).InfoCode != dns.ExtendedErrorCodeNoReachableAuthority {
			t.Errorf("%v", m)
		}
		for peer, want := range map[netip.Addr]int{ada: 0, eve: 1} {
			if m := ask(z, peer, "alive.cluster.local.", dns.TypeA); len(m.Answer) != want {
				t.Errorf("%v: %v", peer, m)
			}
		}
		time.Sleep(confirmPause)
		if m := ask(z, ada, "alive.cluster.local.", dns.TypeA); len(m.Answer) != 1 {
			t.Errorf("after the pause: %v", m)
		}
	})
}

// What is remembered is nobody's burden.
func TestRememberedAnswersAreFree(t *testing.T) {
	asked := 0
	z := newZone(t, dnsproxy.NewCache(dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		if asked++; asked > 1 {
			return nil, errors.New("down")
		}
		m := new(dns.Msg)
		m.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 5 IN A 10.96.0.77")
		m.Answer = []dns.RR{rr}
		return m, nil
	})))
	z.accounts = newAccounts(Quota{AtOnce: 1, PerSecond: 1})
	for range 10 {
		if m := ask(z, ada, "rewritten.cluster.local.", dns.TypeA); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
	}
	ask(z, ada, "other.cluster.local.", dns.TypeA) // fails
	if m := ask(z, ada, "rewritten.cluster.local.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("while the server is left alone: %v", m)
	}
}

func TestAccountsThatCountNothingAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAccounts(Quota{AtOnce: 1, PerSecond: 1})
		addr := netip.MustParseAddr("fd70::")
		open := func() {
			addr = addr.Next()
			if leave, ok := s.enter(t.Context(), addr); !ok {
				t.Fatal("no leave")
			} else {
				leave()
			}
		}
		for range sweepAt {
			open()
		}
		s.pause(addr)
		time.Sleep(time.Second)
		open()
		if n := len(s.peers); n != 2 {
			t.Errorf("%d accounts, want that of the paused peer and the new one", n)
		}
	})
}

func TestAnswersSayWhy(t *testing.T) {
	z := newZone(t, nil)
	for name, want := range map[string]uint16{
		"ledger.pay.svc.cluster.local.": dns.ExtendedErrorCodeProhibited,
		"nope.pay.svc.cluster.local.":   dns.ExtendedErrorCodeProhibited,
		"example.com.":                  dns.ExtendedErrorCodeNotAuthoritative,
		"nope.shop.svc.cluster.local.":  0,
	} {
		if m := ask(z, ada, name, dns.TypeA); explained(m).InfoCode != want {
			t.Errorf("%s: %v", name, m)
		}
	}
	silence := 0 * time.Second
	z.cfg.Behind = func() time.Duration { return silence }
	for silence = range 2 { // first nothing, then 1 ns
		for name, want := range map[string]uint16{
			"web.shop.svc.cluster.local.":   dns.ExtendedErrorCodeStaleAnswer,
			"nope.shop.svc.cluster.local.":  dns.ExtendedErrorCodeStaleNXDOMAINAnswer,
			"20.0.96.10.in-addr.arpa.":      dns.ExtendedErrorCodeStaleAnswer,
			"ledger.pay.svc.cluster.local.": dns.ExtendedErrorCodeProhibited, // more to the point
			"loop.shop.svc.cluster.local.":  0,
		} {
			if want != dns.ExtendedErrorCodeProhibited && silence == 0 {
				want = 0
			}
			if m := ask(z, ada, name, dns.TypeA); explained(m).InfoCode != want {
				t.Errorf("%s, silent for %v: %v", name, silence, m)
			}
		}
	}
	z.synced.Store(false)
	if m := ask(z, ada, "web.shop.svc.cluster.local.", dns.TypeA); explained(m).InfoCode != dns.ExtendedErrorCodeNotReady {
		t.Errorf("%v", m)
	}
}
