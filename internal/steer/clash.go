package steer

import (
	"fmt"
	"slices"
)

// ClashError says that two rules would steal the same requests.
type ClashError struct {
	// Rule and Owner are those of the rule that was there first.
	Rule, Owner string
	Protocol    Protocol
	Port        uint16
}

func (e *ClashError) Error() string {
	return fmt.Sprintf("rule %q of %s steals the same requests of %s port %d", e.Rule, e.Owner, e.Protocol, e.Port)
}

// Clash says why newer must not stand beside older: a *ClashError, or what is
// wrong with one of them; nil when it may.
//
// Two rules clash when both steal from one port for different owners, and every
// request of one is known to be one of the other as well: a rule about the whole
// port has all of them. Where they only overlap both may stand, and Decide says
// who gets what. Of regular expressions it is known only that they equal themselves
// and which single values they match.
func Clash(newer, older Rule) error {
	n, err := newer.compile()
	if err != nil {
		return fmt.Errorf("rule %q: %w", newer.Name, err)
	}
	o, err := older.compile()
	if err != nil {
		return fmt.Errorf("rule %q: %w", older.Name, err)
	}
	if newer.Owner == older.Owner || newer.Protocol != older.Protocol || newer.Port != older.Port ||
		newer.Mode != Steal || older.Mode != Steal {
		return nil
	}
	if within(n, o) || within(o, n) {
		return &ClashError{Rule: older.Name, Owner: older.Owner, Protocol: older.Protocol, Port: older.Port}
	}
	return nil
}

// within reports whether every request of one rule is known to be one of another.
// No matchers are a whole port.
func within(these, those []*matcher) bool {
	switch {
	case len(those) == 0:
		return true
	case len(these) == 0:
		return false
	}
	return !slices.ContainsFunc(these, func(m *matcher) bool {
		return !slices.ContainsFunc(those, m.implies)
	})
}

// implies reports whether every request that m matches is known to match n.
func (m *matcher) implies(n *matcher) bool {
	method, path := m.method.implies(&n.method), m.path.implies(&n.path)
	if m.grpc != nil {
		method = method || n.method.match("POST")
		if m.grpc.form != expression {
			call := newGlob("/" + m.grpc.text)
			path = path || call.implies(&n.path)
		}
	}
	return method && path && m.host.implies(&n.host) &&
		(n.grpc == nil || m.grpc != nil && m.grpc.implies(n.grpc)) &&
		impliesAll(m.headers, n.headers) && impliesAll(m.query, n.query)
}

// impliesAll reports whether all that is wanted follows from what is given.
func impliesAll(given, wanted []condition) bool {
	return !slices.ContainsFunc(wanted, func(w condition) bool {
		return !slices.ContainsFunc(given, func(g condition) bool {
			return g.name == w.name && g.value.implies(&w.value)
		})
	})
}
