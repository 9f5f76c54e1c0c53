package steer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOrder: who gets a request does not depend on the order of the rules, and is
// who wins against each of the others alone.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	heads := randomHeads(r, 30)
	contested := 0
	for range 100 {
		var rules []Rule
		for i := range 2 + r.IntN(7) {
			rule := randomRule(r, fmt.Sprintf("dev%d", i))
			if r.IntN(4) == 0 {
				rule.Mode = Mirror
			}
			rules = append(rules, rule)
		}
		p := compile(t, rules...)
		shuffled := slices.Clone(rules)
		r.Shuffle(len(rules), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		q := compile(t, shuffled...)

		for _, h := range heads {
			got := p.Decide(h)
			if again := q.Decide(h); story(got) != story(again) {
				t.Fatalf("%s, in another order %s: %+v", story(got), story(again), rules)
			}
			winner := ""
			if got.Steal != nil {
				winner = got.Steal.Name
			}
			if n := contest(t, rules, winner, h); n > 1 {
				contested++
			}
			for _, rule := range rules {
				if rule.Mode == Mirror && (compile(t, rule).Decide(h).Mirrors != nil) != mirrors(got, rule) {
					t.Fatalf("%s does not get its own copy: %+v", rule.Name, rules)
				}
			}
		}
	}
	if contested < 100 {
		t.Errorf("%d contests show nothing", contested)
	}
}

// contest fails when the winner does not win against each rule that steals h by
// itself, and returns how many those are.
func contest(t *testing.T, rules []Rule, winner string, h *Head) (n int) {
	t.Helper()
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == winner })
	for _, rule := range rules {
		if rule.Mode != Steal || compile(t, rule).Decide(h).Steal == nil {
			continue
		}
		n++
		if i < 0 {
			t.Fatalf("%s does not get its own: %+v", rule.Name, rules)
		}
		if rule.Name != winner && compile(t, rule, rules[i]).Decide(h).Steal.Name != winner {
			t.Fatalf("%s wins, but not against %s: %+v", winner, rule.Name, rules)
		}
	}
	if (n > 0) != (i >= 0) {
		t.Fatalf("%s wins, and %d rules want it: %+v", winner, n, rules)
	}
	return n
}

func mirrors(d Decision, rule Rule) bool {
	return slices.ContainsFunc(d.Mirrors, func(r *Rule) bool { return r.Name == rule.Name })
}

// Of so few values that rules meet often.
var (
	somePatterns = []string{"a", "b", "ab", "a*", "*b", "*", "a*b", "~a", "~^b"}
	someValues   = []string{"a", "b", "ab", "aab", "ba", "c", ""}
)

func randomRule(r *rand.Rand, owner string) Rule {
	rule := steal(owner, r.IntN(2))
	if r.IntN(8) == 0 {
		return rule
	}
	for range 1 + r.IntN(2) {
		rule.Matches = append(rule.Matches, randomMatch(r))
	}
	return rule
}

func randomMatch(r *rand.Rand) Match {
	pattern := func() string { return somePatterns[r.IntN(len(somePatterns))] }
	m := header("x", pattern())
	if r.IntN(2) == 0 {
		m = Match{Host: pattern()}
	}
	if r.IntN(2) == 0 {
		m.Query = query("q", pattern()).Query
	}
	if r.IntN(3) == 0 {
		m.Path = "/" + pattern()
	}
	if r.IntN(4) == 0 {
		m.GRPC = pattern()
	}
	return m
}

func randomHeads(r *rand.Rand, n int) (heads []*Head) {
	value := func() string { return someValues[r.IntN(len(someValues))] }
	for range n {
		h := send([]string{"GET", "POST"}[r.IntN(2)], "/"+value()+"?q="+value(), "x: "+value(), "x: "+value())
		h.Host = value()
		if r.IntN(2) == 0 {
			h.Fields = append(h.Fields, Field{"content-type", "application/grpc"})
		}
		heads = append(heads, h)
	}
	return heads
}
