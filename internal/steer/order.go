package steer

import (
	"cmp"
	"slices"
)

// candidate is one way to be steered: a match of a rule, or a whole port.
type candidate struct {
	rule    *Rule
	matcher *matcher // nil: the whole port
}

func (c *candidate) match(r *request) bool { return c.matcher == nil || c.matcher.match(r) }

func (c *candidate) rank() rank {
	if c.matcher == nil {
		return rank{}
	}
	return c.matcher.rank
}

// rank is how specific a match is. A whole port has the zero rank.
type rank struct {
	conditions   int
	exact, globs int // how many of the patterns are such
	literal      int // bytes of all patterns that must be in the request
}

func (r *rank) add(p *pattern) {
	r.conditions++
	r.literal += p.literal
	switch p.form {
	case exact:
		r.exact++
	case glob:
		r.globs++
	}
}

// sortCandidates puts first what Decide asks first.
func sortCandidates(candidates []candidate) {
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		ra, rb := a.rank(), b.rank()
		return cmp.Or(
			cmp.Compare(rb.conditions, ra.conditions),
			cmp.Compare(rb.exact, ra.exact),
			cmp.Compare(rb.globs, ra.globs),
			cmp.Compare(rb.literal, ra.literal),
			a.rule.Since.Compare(b.rule.Since),
			cmp.Compare(a.rule.Name, b.rule.Name),
		)
	})
}
