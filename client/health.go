package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/dnsproxy"
)

const (
	// namesEvery is how often a session makes sure that the host still asks it,
	// namesDoubt how soon again when it seemed not to. Two noes in a row count:
	// a busy machine may be slow once.
	namesEvery = 30 * time.Second
	namesDoubt = 2 * time.Second
	// namesTime is how long the host's programs may take to get an answer.
	namesTime = 4 * time.Second
)

// namesReach asks, as the programs of this host do, for a name below a domain of
// wish that the session's proxy has just made up. The error says by which way the
// question does not come to the proxy, or its answer not back.
func namesReach(ctx context.Context, host helper.Session, split *dnsproxy.Split, wish osdns.Config) error {
	ctx, cancel := context.WithTimeout(ctx, namesTime)
	defer cancel()
	name, want := split.Check(wish.MatchDomains[0])
	return judgeWays(host.LookUp(ctx, name), want)
}

// judgeWays says what is wrong with each way that did not give want; ways that
// failed alike are told in one sentence.
func judgeWays(ways []osdns.Way, want netip.Addr) error {
	var wrong []string
	for _, w := range ways {
		switch {
		case w.Err != nil:
			wrong = append(wrong, fmt.Sprintf("%s do not get the cluster's names: %v", w.Programs, w.Err))
		case !slices.Contains(w.Addrs, want):
			wrong = append(wrong, fmt.Sprintf("%s ask somebody else for the cluster's names", w.Programs))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(wrong, "; "))
}

// namesFound notes what became of such a question.
func (s *Session) namesFound(err error) {
	s.set(func(c *localapi.Connection) {
		c.DNS.Healthy, c.DNS.Problem = err == nil, ""
		if err != nil {
			c.DNS.Problem = err.Error()
		}
	})
	if err == nil {
		s.clear("dns", "programs of this machine get the cluster's names again")
		return
	}
	s.warn(localapi.Warning{Code: "dns", Severity: "high", Text: err.Error(), Hint: "podnet doctor says how this machine resolves names; cat /etc/resolv.conf, resolvectl status, grep hosts /etc/nsswitch.conf"})
}

// names is when a keeper asks next whether the host still asks the proxy.
type names struct {
	next  time.Time
	noes  int // in a row
	asked osdns.Config
}

// checkNames makes sure, from time to time and after every change of the host's
// resolver, that names of the cluster come to the session's proxy.
func (k *keeper) checkNames() {
	wish, now := k.resolver.wish, time.Now()
	if !wish.Equal(k.reach.asked) {
		k.reach.asked, k.reach.next = wish, now
	}
	if now.Before(k.reach.next) || k.jobs.running["names"] != nil {
		return
	}
	k.reach.next = now.Add(namesEvery)
	host, split := k.host, k.resolver.split
	k.jobs.start("names", func(ctx context.Context) outcome {
		err := namesReach(ctx, host, split, wish)
		return outcome{apply: func() error {
			if err == nil {
				k.reach.noes = 0
				k.namesFound(nil)
				return nil
			}
			if k.reach.noes++; k.reach.noes >= 2 {
				k.namesFound(err)
			}
			k.reach.next = time.Now().Add(namesDoubt)
			return nil
		}}
	})
}
