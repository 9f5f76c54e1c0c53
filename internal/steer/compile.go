package steer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Validate says what is wrong with a rule by itself, in one sentence that begins
// with the field.
func (r Rule) Validate() error {
	_, err := r.compile()
	return err
}

// compile checks r, and makes its matches fast to ask. There are none when the
// rule is about the whole port.
func (r *Rule) compile() ([]*matcher, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var matchers []*matcher
	steps := 0
	for i := range r.Matches {
		m, err := r.Matches[i].compile(&steps)
		if err != nil {
			return nil, fmt.Errorf("matches[%d]%w", i, err)
		}
		matchers = append(matchers, m)
	}
	return matchers, nil
}

// check looks at all but what is in the matches.
func (r *Rule) check() error {
	whole := len(r.Matches) == 0
	switch {
	case r.Protocol != TCP && r.Protocol != UDP:
		return fmt.Errorf("protocol: must be %q or %q, not %q", TCP, UDP, r.Protocol)
	case r.Port == 0:
		return errors.New("port: must be 1 to 65535")
	case r.Mode != Steal && r.Mode != Mirror:
		return fmt.Errorf("mode: must be %q or %q, not %q", Steal, Mirror, r.Mode)
	case r.Protocol == UDP && !whole:
		return errors.New("matches: there are no requests in UDP")
	case len(r.Matches) > MaxMatches:
		return fmt.Errorf("matches: are %d, at most %d are allowed", len(r.Matches), MaxMatches)
	}
	switch r.ClientAddress {
	case ClientUnsaid:
	case ClientByHeader, ClientByProxy:
		if r.Protocol == UDP {
			return errors.New("clientAddress: cannot be told with UDP")
		}
		if r.ClientAddress == ClientByHeader && whole {
			return fmt.Errorf("clientAddress: a whole port is not read as HTTP, use %q", ClientByProxy)
		}
	default:
		return fmt.Errorf("clientAddress: must be %q, %q or empty, not %q", ClientByProxy, ClientByHeader, r.ClientAddress)
	}
	return cmp.Or(checkText("name", r.Name, 253), checkText("owner", r.Owner, 1024))
}

func checkText(field, text string, most int) error {
	switch {
	case text == "" || len(text) > most:
		return fmt.Errorf("%s: must have 1 to %d bytes", field, most)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s: has a control character", field)
	}
	return nil
}

// compile makes a matcher, and adds to the steps of its rule. Its errors begin with the
// field behind the match.
func (m *Match) compile(steps *int) (*matcher, error) {
	b := builder{steps: steps}
	c := &matcher{
		method: b.optional(".method", m.Method, asWritten),
		host:   b.optional(".host", m.Host, anyCase),
		path:   b.optional(".path", m.Path, asWritten),
	}
	if m.GRPC != "" {
		p := b.pattern(".grpc", m.GRPC, asWritten)
		c.grpc = &p
	}
	for i, h := range m.Headers {
		field := fmt.Sprintf(".headers[%d]", i)
		b.check(field+".name", checkHeader(h.Name))
		c.headers = append(c.headers, condition{lower(h.Name), b.pattern(field+".value", h.Value, asWritten)})
	}
	for i, q := range m.Query {
		field := fmt.Sprintf(".query[%d]", i)
		b.check(field+".name", checkLength(q.Name))
		c.query = append(c.query, condition{q.Name, b.pattern(field+".value", q.Value, asWritten)})
	}
	if b.rank.conditions == 0 {
		b.check("", errors.New("has no condition; a rule without matches takes the whole port"))
	}
	c.rank = b.rank
	return c, b.err
}

// builder gathers the rank of a match, and the first thing that is wrong with it.
type builder struct {
	rank  rank
	steps *int // of all regular expressions of the rule so far
	err   error
}

func (b *builder) check(field string, err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("%s: %w", field, err)
	}
}

func (b *builder) pattern(field, text string, letters letters) pattern {
	if b.rank.conditions == MaxConditions {
		b.check("", fmt.Errorf("has more than %d conditions", MaxConditions))
	}
	if b.err != nil {
		return pattern{}
	}
	p, err := parsePattern(text, letters)
	b.check(field, err)
	if *b.steps += p.steps; *b.steps > maxRuleSteps {
		b.check(field, fmt.Errorf("is one regular expression too many: at most %d steps are allowed in a rule", maxRuleSteps))
	}
	b.rank.add(&p)
	return p
}

func (b *builder) optional(field, text string, letters letters) pattern {
	if text == "" {
		return anything
	}
	return b.pattern(field, text, letters)
}

func checkHeader(name string) error {
	switch {
	case strings.EqualFold(name, "host"):
		return errors.New("has a pattern of its own, host")
	case !isToken(name):
		return fmt.Errorf("%q is no field name", name)
	}
	return checkLength(name)
}

func checkLength(name string) error {
	if name == "" || len(name) > MaxPattern {
		return fmt.Errorf("must have 1 to %d bytes", MaxPattern)
	}
	return nil
}

// clone copies r with all that it refers to.
func (r Rule) clone() *Rule {
	r.Matches = slices.Clone(r.Matches)
	for i := range r.Matches {
		m := &r.Matches[i]
		m.Headers, m.Query = slices.Clone(m.Headers), slices.Clone(m.Query)
	}
	return &r
}
