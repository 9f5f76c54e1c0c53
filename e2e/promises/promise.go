package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"podnet.dev/internal/measure"
)

// A promise is a statement that somebody else can check.
type promise struct {
	number int
	says   string // with its number, in plain words
	shown  []test // every one has to pass

	// limits are those that its tests have to measure, as package measure prints
	// them: "at most 2 s".
	limits []string
	// missing is what of it no test shows; while there is something, the promise
	// is kept in part at best.
	missing string
	// instead is what of it one Linux machine cannot run, and what was done in place of that.
	instead string
}

// A section is what the promises of one kind are listed under.
type section struct {
	title    string
	promises []promise
}

// A test is one of this repository's Go tests.
type test struct {
	in   string // its folder
	name string
	long bool // it is the long form that shows it: PODNET_E2E_LONG
}

// short and long name tests of one folder.
func short(in string, names ...string) []test { return named(in, false, names) }
func long(in string, names ...string) []test  { return named(in, true, names) }

func named(in string, long bool, names []string) []test {
	var all []test
	for _, n := range names {
		all = append(all, test{in, n, long})
	}
	return all
}

func (t test) String() string {
	if t.long {
		return t.in + " " + t.name + " (long)"
	}
	return t.in + " " + t.name
}

// needsLab says whether the test is one of those that a running lab is for.
func (t test) needsLab() bool { return t.in == "e2e" || t.in == "e2e/lab" }

// A colour is how a promise stands.
type colour string

const (
	green colour = "green" // all of it is shown, by tests that passed, and every limit is met
	amber colour = "amber" // a part of it is shown
	red   colour = "RED"   // nothing is shown, a test failed, was skipped or never ran, or a limit is not met
)

// colour tells how the promise stands by what its tests did, and why if it is red.
func (p promise) colour(r results) (colour, string) {
	if len(p.shown) == 0 {
		return red, "no test shows it"
	}
	var bad []string
	for _, o := range []outcome{failed, skipped, absent} {
		var names []string
		for _, t := range p.shown {
			if r.of(t).Outcome == o {
				names = append(names, t.name)
			}
		}
		if len(names) == len(p.shown) {
			names = []string{"all of it"}
		}
		if len(names) > 0 {
			bad = append(bad, fmt.Sprintf("%s: %s", o, strings.Join(names, ", ")))
		}
	}
	for _, text := range p.measured(r) {
		if f, ok := measure.Read(text); ok && !f.Met {
			bad = append(bad, "not met: "+text)
		}
	}
	switch {
	case len(bad) > 0:
		return red, strings.Join(bad, "; ")
	case p.missing != "" || len(p.unmeasured(r)) > 0:
		return amber, ""
	}
	return green, ""
}

// measured are the figures that the promise's tests printed with its number.
func (p promise) measured(r results) []string {
	var all []string
	for _, t := range p.shown {
		all = append(all, r.of(t).Measured[p.number]...)
	}
	return all
}

// unmeasured are the limits of the promise that none of its tests has measured.
func (p promise) unmeasured(r results) []string {
	rest := slices.Clone(p.limits)
	for _, text := range p.measured(r) {
		if f, ok := measure.Read(text); ok {
			rest = slices.DeleteFunc(rest, func(l string) bool { return l == f.Limit })
		}
	}
	return rest
}

// choose picks the promises that words name: numbers, ranges of them, and "rest"
// for those whose tests have not all passed. No word means all.
func choose(words []string, all []section, r results) ([]promise, error) {
	var chosen []promise
	want := map[int]bool{}
	rest := false
	for _, w := range words {
		if w == "rest" {
			rest = true
			continue
		}
		from, to, isRange := strings.Cut(w, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || a > b {
			return nil, fmt.Errorf("%q is neither a number, a range such as 1-12, nor \"rest\"", w)
		}
		for n := a; n <= b; n++ {
			want[n] = true
		}
	}
	for _, s := range all {
		for _, p := range s.promises {
			c, _ := p.colour(r)
			if len(words) == 0 || want[p.number] || rest && c == red {
				chosen = append(chosen, p)
				delete(want, p.number)
			}
		}
	}
	if len(want) > 0 {
		var unknown []string
		for n := range want {
			unknown = append(unknown, strconv.Itoa(n))
		}
		slices.Sort(unknown)
		return nil, fmt.Errorf("there is no promise %s", strings.Join(unknown, ", "))
	}
	return chosen, nil
}
