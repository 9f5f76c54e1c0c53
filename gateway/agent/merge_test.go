package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

var (
	keyA, keyB = key.Public{1}, key.Public{2}
	laptopA    = netip.MustParseAddr("fd70:6f64:6e65:7403::a")
	laptopB    = netip.MustParseAddr("fd70:6f64:6e65:7403::b")
)

// ruleOf is a rule about a whole port.
func ruleOf(name string, laptop netip.Addr, since int64) control.Rule {
	return control.Rule{Laptop: laptop, RelayPort: 20000, Rule: steer.Rule{
		Name: name, Owner: "alice", Since: time.Unix(since, 0), Protocol: steer.TCP, Port: 8080, Mode: steer.Steal,
	}}
}

func gatewayOf(k key.Public) control.Gateway {
	return control.Gateway{PublicKey: k, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:51820")}}
}

// says makes the view of a gateway that has rules, at which laptops turned up at
// the Unix times given.
func says(k key.Public, since map[netip.Addr]int64, rules ...control.Rule) view {
	v := view{key: k, set: &control.Set{Rules: rules, Gateways: []control.Gateway{gatewayOf(k)}}, since: map[netip.Addr]time.Time{}}
	for a, t := range since {
		v.since[a] = time.Unix(t, 0)
	}
	return v
}

func TestMerge(t *testing.T) {
	one, two := ruleOf("one", laptopA, 1), ruleOf("two", laptopB, 2)
	again := ruleOf("one", laptopB, 3)
	here := one
	here.Here = true
	for name, c := range map[string]struct {
		views    []view
		rules    []control.Rule
		ways     map[netip.Addr][]key.Public
		gateways int
		end      bool
	}{
		"nobody beats":              {},
		"no set yet":                {views: []view{{key: keyA}}},
		"one gateway":               {views: []view{says(keyA, map[netip.Addr]int64{laptopA: 5}, here)}, rules: []control.Rule{one}, ways: map[netip.Addr][]key.Public{laptopA: {keyA}}, gateways: 1},
		"a laptop that is nowhere":  {views: []view{says(keyA, nil, one)}, rules: []control.Rule{one}, ways: map[netip.Addr][]key.Public{laptopA: nil}, gateways: 1},
		"one of two is behind":      {views: []view{says(keyB, nil, two, one), says(keyA, nil, one)}, rules: []control.Rule{one, two}, ways: map[netip.Addr][]key.Public{laptopA: nil, laptopB: nil}, gateways: 2},
		"one of two is empty":       {views: []view{says(keyB, nil), says(keyA, nil, one)}, rules: []control.Rule{one}, ways: map[netip.Addr][]key.Public{laptopA: nil}, gateways: 2},
		"the last rule is gone":     {views: []view{says(keyB, nil), {key: keyA}}, gateways: 1, end: true},
		"a name that came back":     {views: []view{says(keyA, nil, one), says(keyB, nil, again)}, rules: []control.Rule{again}, ways: map[netip.Addr][]key.Public{laptopB: nil}, gateways: 2},
		"the laptop moved, to B":    {views: []view{says(keyA, map[netip.Addr]int64{laptopA: 5}, one), says(keyB, map[netip.Addr]int64{laptopA: 6}, one)}, rules: []control.Rule{one}, ways: map[netip.Addr][]key.Public{laptopA: {keyB, keyA}}, gateways: 2},
		"it moved at the same time": {views: []view{says(keyB, map[netip.Addr]int64{laptopA: 5}, one), says(keyA, map[netip.Addr]int64{laptopA: 5}, one)}, rules: []control.Rule{one}, ways: map[netip.Addr][]key.Public{laptopA: {keyA, keyB}}, gateways: 2},
	} {
		w := merge(c.views)
		names := func(rules []control.Rule) (all []string) {
			for _, r := range rules {
				all = append(all, r.Name+" "+r.Laptop.String())
				if r.Here {
					t.Errorf("%s: rule %s is still here", name, r.Name)
				}
			}
			return all
		}
		if got, want := names(w.rules), names(c.rules); !slices.Equal(got, want) {
			t.Errorf("%s: rules %v, want %v", name, got, want)
		}
		if len(w.ways) != len(c.ways) {
			t.Errorf("%s: ways %v, want %v", name, w.ways, c.ways)
		}
		for a, want := range c.ways {
			if got, ok := w.ways[a]; !ok || !slices.Equal(got, want) {
				t.Errorf("%s: ways to %s: %v, want %v", name, a, got, want)
			}
		}
		if len(w.gateways) != c.gateways || w.end != c.end || len(w.refused) != 0 {
			t.Errorf("%s: %d gateways, end %v, refused %v; want %d, %v", name, len(w.gateways), w.end, w.refused, c.gateways, c.end)
		}
	}
}

// TestMergeRefuses: a rule that cannot be followed does not keep the others from
// it, nor does it count as none.
func TestMergeRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*control.Rule){
		"relay address": func(r *control.Rule) { r.Laptop = netip.MustParseAddr("10.0.0.1") },
		"relay port":    func(r *control.Rule) { r.RelayPort = control.LivePort },
		"port: must":    func(r *control.Rule) { r.Port = 0 },
	} {
		bad := ruleOf("bad", laptopB, 1)
		spoil(&bad)
		w := merge([]view{says(keyA, nil, bad, ruleOf("good", laptopA, 2))})
		if len(w.rules) != 1 || w.rules[0].Name != "good" || len(w.refused) != 1 || !strings.Contains(w.refused[0].Error(), want) {
			t.Errorf("%s: rules %v, refused %v", want, w.rules, w.refused)
		}
		if merge([]view{says(keyA, nil, bad)}).end {
			t.Errorf("%s: a rule that cannot be followed ends the agent", want)
		}
	}

	var many []control.Rule
	for i := range control.MaxRules + 1 {
		many = append(many, ruleOf(fmt.Sprintf("rule-%d", i), laptopA, int64(-i)))
	}
	w := merge([]view{says(keyA, nil, many...)})
	if len(w.rules) != control.MaxRules || w.rules[0].Since != time.Unix(-control.MaxRules, 0) || len(w.refused) != 1 {
		t.Errorf("too many: %d rules, refused %v", len(w.rules), w.refused)
	}
}

func TestTurned(t *testing.T) {
	here := func(laptops ...netip.Addr) *control.Set {
		s := &control.Set{Rules: []control.Rule{{Laptop: laptopB}}}
		for _, a := range laptops {
			s.Rules = append(s.Rules, control.Rule{Laptop: a, Here: true})
		}
		return s
	}
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	first := turned(nil, here(laptopA), at(1))
	stays := turned(first, here(laptopA, laptopB), at(2))
	gone := turned(stays, here(laptopB), at(3))
	back := turned(gone, here(laptopA, laptopB), at(4))
	for name, c := range map[string]struct {
		got  map[netip.Addr]time.Time
		a, b time.Time
	}{
		"first": {first, at(1), time.Time{}}, "stays": {stays, at(1), at(2)}, "gone": {gone, time.Time{}, at(2)}, "back": {back, at(4), at(2)},
	} {
		if c.got[laptopA] != c.a || c.got[laptopB] != c.b {
			t.Errorf("%s: %v", name, c.got)
		}
	}
}

func TestSolitude(t *testing.T) {
	var s solitude
	for _, c := range []struct {
		at    time.Duration
		beats bool
		want  bool
	}{
		{0, false, false}, {loneliness - 1, false, false}, {loneliness, false, true},
		{loneliness, true, false}, {loneliness + 1, false, false}, {2 * loneliness, false, false}, {2*loneliness + 1, false, true},
	} {
		if got := s.tooLong(time.Unix(1, 0).Add(c.at), c.beats); got != c.want {
			t.Errorf("after %v, beats %v: %v", c.at, c.beats, got)
		}
	}
}

func TestParseOptions(t *testing.T) {
	k := keyA.String()
	for args, want := range map[string]string{
		"--version": "",
		"--pod-uid u --gateway " + k + "@10.0.0.1:51820,[fd00::1]:51820 --gateway " + keyB.String() + "@10.0.0.2:1 --node-addr 10.0.0.9 --node-addr fd00::9": "",
		"":                                   "--pod-uid",
		"--pod-uid u":                        "--gateway",
		"--pod-uid u --gateway " + k:         "want KEY@IP:PORT",
		"--pod-uid u --gateway " + k + "@":   "not an ip:port",
		"--pod-uid u --gateway x@10.0.0.1:1": "parse key",
		"--pod-uid u --node-addr nowhere":    "nowhere",
		"--pod-uid u --gateway " + k + "@10.0.0.1:1 more": `unexpected argument "more"`,
	} {
		var talk strings.Builder
		o, err := ParseOptions(strings.Fields(args), &talk)
		if want == "" {
			if err != nil || !o.Version && (o.PodUID != "u" || len(o.Gateways) != 2 || len(o.Gateways[0].Endpoints) != 2 || len(o.NodeAddrs) != 2) {
				t.Errorf("%s: %+v, %v", args, o, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
