package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// view is what one gateway that beats has said.
type view struct {
	key key.Public
	set *control.Set // its newest; nil: none yet
	// since is when each laptop that is with the gateway turned up there.
	since map[netip.Addr]time.Time
}

// wish is what all gateways together want of the agent.
type wish struct {
	// rules are those that can be followed, the oldest first, each once, with
	// Here unset.
	rules []control.Rule
	// ways are the gateways by which each laptop of a rule may be reached, the
	// best one first; none while it is with no gateway.
	ways map[netip.Addr][]key.Public
	// gateways are all there are, sorted by key.
	gateways []control.Gateway
	// egress are the tunnel addresses of the gateways that may have flows leave
	// from the pod.
	egress []netip.Addr
	// leaving are the names of the rules by which they do.
	leaving []string
	// heard says that some gateway has said something at all.
	heard bool
	// end says that no rule is left, nor anybody who sends as the pod.
	end bool
	// refused says what is wrong with rules that cannot be followed.
	refused []error
}

// merge makes one wish of what the gateways say, each of which may be a little
// behind the others: a rule counts that any of them has.
func merge(views []view) wish {
	views = slices.Clone(views)
	slices.SortFunc(views, func(a, b view) int { return slices.Compare(a.key[:], b.key[:]) })
	w := wish{ways: map[netip.Addr][]key.Public{}}
	rules := map[string]control.Rule{}
	gateways := map[key.Public]control.Gateway{}
	for _, v := range views {
		if v.set == nil {
			continue
		}
		w.heard = true
		if len(v.set.Egress) > 0 {
			w.egress = append(w.egress, v.key.Address6())
			w.leaving = append(w.leaving, v.set.Egress...)
		}
		for _, r := range v.set.Rules {
			r.Here = false
			// A name may have come back with another rule behind it.
			if have, ok := rules[r.Name]; !ok || have.Since.Before(r.Since) {
				rules[r.Name] = r
			}
		}
		for _, g := range v.set.Gateways {
			if _, ok := gateways[g.PublicKey]; !ok && !g.PublicKey.IsZero() && len(g.Endpoints) > 0 {
				gateways[g.PublicKey] = g
			}
		}
	}
	for _, r := range rules {
		if err := follow(&r); err != nil {
			w.refused = append(w.refused, fmt.Errorf("rule %q: %w", r.Name, err))
			continue
		}
		w.rules = append(w.rules, r)
	}
	slices.SortFunc(w.refused, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	slices.SortFunc(w.rules, func(a, b control.Rule) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	if len(w.rules) > control.MaxRules {
		w.refused = append(w.refused, fmt.Errorf("%d rules, of which the oldest %d count", len(w.rules), control.MaxRules))
		w.rules = w.rules[:control.MaxRules]
	}
	for _, r := range w.rules {
		if _, ok := w.ways[r.Laptop]; !ok {
			w.ways[r.Laptop] = ways(views, r.Laptop)
		}
	}
	for _, g := range gateways {
		w.gateways = append(w.gateways, g)
	}
	slices.SortFunc(w.gateways, func(a, b control.Gateway) int { return slices.Compare(a.PublicKey[:], b.PublicKey[:]) })
	w.end = w.heard && len(rules) == 0 && len(w.egress) == 0
	return w
}

// untouched is the wish without what takes the pod's traffic, for an agent that
// cannot.
func (w wish) untouched() wish {
	if len(w.rules) == 0 {
		return w
	}
	w.rules, w.ways = nil, nil
	w.refused = append(slices.Clone(w.refused), errNoRedirect)
	return w
}

// errNoRedirect is what rules meet that take the pod's traffic.
var errNoRedirect = errors.New("this agent redirects nothing (--no-redirect); another one has to be put into the pod")

// follow says why a rule cannot be followed.
func follow(r *control.Rule) error {
	switch {
	case !key.RelayPrefix6.Contains(r.Laptop):
		return fmt.Errorf("%v is no relay address", r.Laptop)
	case r.RelayPort < 1024 || r.RelayPort == control.LivePort:
		return fmt.Errorf("%d is no relay port", r.RelayPort)
	}
	return r.Validate()
}

// ways are the gateways that a laptop is with. Where there are several, all but
// one have not noticed yet that it has gone: the one it came to last goes first.
func ways(views []view, laptop netip.Addr) []key.Public {
	var with []view
	for _, v := range views {
		if _, ok := v.since[laptop]; ok {
			with = append(with, v)
		}
	}
	slices.SortStableFunc(with, func(a, b view) int { return b.since[laptop].Compare(a.since[laptop]) })
	var keys []key.Public
	for _, v := range with {
		keys = append(keys, v.key)
	}
	return keys
}

// turned is when each laptop of a set that is with the gateway turned up there:
// what was known before, or now.
func turned(before map[netip.Addr]time.Time, set *control.Set, now time.Time) map[netip.Addr]time.Time {
	since := map[netip.Addr]time.Time{}
	for _, r := range set.Rules {
		if !r.Here {
			continue
		}
		if t, ok := before[r.Laptop]; ok {
			since[r.Laptop] = t
		} else {
			since[r.Laptop] = now
		}
	}
	return since
}
