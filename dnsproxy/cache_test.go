package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// reply is an Exchanger that counts and gives the records of a text.
func reply(count *atomic.Int32, rcode int, answer, authority string) Exchanger {
	return ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		count.Add(1)
		m := new(dns.Msg)
		m.SetRcode(q, rcode)
		if answer != "" {
			rr, err := dns.NewRR(answer)
			if err != nil {
				return nil, err
			}
			m.Answer = []dns.RR{rr}
		}
		if authority != "" {
			rr, err := dns.NewRR(authority)
			if err != nil {
				return nil, err
			}
			m.Ns = []dns.RR{rr}
		}
		return m, nil
	})
}

func TestCacheLifetimes(t *testing.T) {
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("cluster.local. %d SOA ns.dns. hostmaster. 1 7200 1800 86400 %d", ttl, minimum)
	}
	for _, tt := range []struct {
		what      string
		rcode     int
		answer    string
		authority string
		life      time.Duration
	}{
		{"as long as its record says", 0, "web.cart. 5 A 10.0.0.1", "", 5 * time.Second},
		{"but not above 30 s", 0, "web.cart. 3600 A 10.0.0.1", "", 30 * time.Second},
		{"never when it says so", 0, "web.cart. 0 A 10.0.0.1", "", 0},
		{"NXDOMAIN by its SOA", dns.RcodeNameError, "", soa(20, 10), 10 * time.Second},
		{"NXDOMAIN at least 5 s", dns.RcodeNameError, "", soa(1, 1), 5 * time.Second},
		{"NXDOMAIN at most 30 s", dns.RcodeNameError, "", soa(3600, 3600), 30 * time.Second},
		{"NODATA likewise", 0, "", soa(5, 5), 5 * time.Second},
		{"a bare negative has no promise", dns.RcodeNameError, "", "", 0},
		{"SERVFAIL for a second", dns.RcodeServerFailure, "", "", time.Second},
		{"REFUSED is not kept", dns.RcodeRefused, "", "", 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				c := NewCache(reply(&n, tt.rcode, tt.answer, tt.authority))
				ask := func() *dns.Msg {
					m, err := c.Exchange(t.Context(), query("web.cart.", dns.TypeA))
					if err != nil {
						t.Fatal(err)
					}
					return m
				}
				ask()
				if tt.life == 0 {
					if ask(); n.Load() != 2 {
						t.Errorf("asked %d times", n.Load())
					}
					return
				}
				time.Sleep(tt.life - time.Millisecond)
				if ask(); n.Load() != 1 {
					t.Errorf("asked %d times just before the end", n.Load())
				}
				time.Sleep(time.Millisecond)
				if ask(); n.Load() != 2 {
					t.Errorf("asked %d times after the end", n.Load())
				}
			})
		})
	}
}

func TestCacheCountsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := NewCache(reply(&n, 0, "web.cart. 300 A 10.0.0.1", ""))
		for _, want := range []uint32{300, 300 - 12} {
			q := query("WEB.cart.", dns.TypeA)
			m, err := c.Exchange(t.Context(), q)
			if err != nil || m.Answer[0].Header().Ttl != want || m.Id != q.Id || m.Question[0].Name != "WEB.cart." {
				t.Errorf("%v, %v; want TTL %d", m, err, want)
			}
			time.Sleep(12 * time.Second)
		}
	})
}

func TestCacheKeepsDifferentQuestionsApart(t *testing.T) {
	var n atomic.Int32
	c := NewCache(reply(&n, 0, "web.cart. 5 A 10.0.0.1", ""))
	do := query("web.cart.", dns.TypeA)
	do.SetEdns0(1232, true)
	cd := query("web.cart.", dns.TypeA)
	cd.CheckingDisabled = true
	all := []*dns.Msg{query("web.cart.", dns.TypeA), query("web.cart.", dns.TypeAAAA), query("db.cart.", dns.TypeA), do, cd}
	for range 2 {
		for _, q := range all {
			if _, err := c.Exchange(context.Background(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n.Load() != int32(len(all)) || c.Len() != len(all) {
		t.Errorf("asked %d times, kept %d", n.Load(), c.Len())
	}
}

func TestCacheAsksOnceForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := NewCache(ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			time.Sleep(time.Second)
			return reply(&n, 0, "web.cart. 5 A 10.0.0.1", "").Exchange(ctx, q)
		}))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				q := query("web.cart.", dns.TypeA)
				if m, err := c.Exchange(t.Context(), q); err != nil || m.Id != q.Id || len(m.Answer) != 1 {
					t.Errorf("%v, %v", m, err)
				}
			})
		}
		wg.Wait()
		if n.Load() != 1 {
			t.Errorf("asked %d times", n.Load())
		}
	})
}

// What is on its way during a Flush belongs to the world before it.
func TestFlushOutrunsAnswersOnTheirWay(t *testing.T) {
	for _, wait := range []time.Duration{0, 2 * time.Second} { // ask before, and after the old answer arrives
		testFlush(t, wait)
	}
}

func testFlush(t *testing.T, wait time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := NewCache(ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			mine := n.Add(1)
			time.Sleep(time.Second)
			m := new(dns.Msg)
			m.SetReply(q)
			rr, _ := dns.NewRR(fmt.Sprintf("web.cart. 5 A 10.0.0.%d", mine))
			m.Answer = []dns.RR{rr}
			return m, nil
		}))
		go c.Exchange(t.Context(), query("web.cart.", dns.TypeA))
		time.Sleep(500 * time.Millisecond)
		c.Flush()
		time.Sleep(wait)
		for range 2 {
			m, err := c.Exchange(t.Context(), query("web.cart.", dns.TypeA))
			if err != nil || m.Answer[0].(*dns.A).A.String() != "10.0.0.2" {
				t.Errorf("%v, %v", m, err)
			}
		}
		synctest.Wait()
	})
}

func TestCacheRemembersThatNobodyAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := NewCache(ExchangerFunc(func(context.Context, *dns.Msg) (*dns.Msg, error) { n++; return nil, errors.New("down") }))
		if _, err := c.Exchange(t.Context(), query("web.cart.", dns.TypeA)); err == nil {
			t.Error("no error")
		}
		if m, err := c.Exchange(t.Context(), query("web.cart.", dns.TypeA)); err != nil || m.Rcode != dns.RcodeServerFailure || n != 1 {
			t.Errorf("%v, %v after %d questions", m, err, n)
		}
		time.Sleep(time.Second)
		c.Exchange(t.Context(), query("web.cart.", dns.TypeA))
		if n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	var n atomic.Int32
	c := NewCache(reply(&n, 0, "web.cart. 5 A 10.0.0.1", ""))
	for i := range cacheSize + 100 {
		if _, err := c.Exchange(context.Background(), query(fmt.Sprintf("w%d.cart.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	if c.Len() > cacheSize {
		t.Errorf("%d answers kept", c.Len())
	}
}
