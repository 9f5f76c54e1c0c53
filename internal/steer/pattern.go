package steer

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxSteps bounds the program of a regular expression, as the time for a value is
// the product of both: MaxHead bytes against (a?){490}, which has 1000 steps, took
// 4 s of a core, and against \w{1000} thirty times over two minutes. A UUID in any
// case has some 50.
const maxSteps = 256

// maxRuleSteps bounds those of all regular expressions of a rule: 350 of them, which
// are 12 KB, took 120 ms to compile, and a gateway does that each time that it hears
// of the rule, and for each pair of rules that might clash.
const maxRuleSteps = 1024

type form int

const (
	exact form = iota
	glob
	expression
)

// letters says whether a and A are the same.
type letters int

const (
	asWritten letters = iota
	anyCase
)

// pattern is a compiled pattern; the zero pattern is the exact "".
type pattern struct {
	form form
	// text is the pattern as written, in lower case if case does not matter.
	text string
	// literal is the number of bytes that a value must have for the pattern to
	// hold, as far as they are plain to see.
	literal int
	// between is what stands before, between and behind the stars of a glob.
	between []string
	re      *regexp.Regexp
	steps   int // of re
}

// anything is the pattern that always holds.
var anything = newGlob("*")

// parsePattern compiles a pattern as Match describes it. With anyCase it is for
// values in lower case.
func parsePattern(text string, letters letters) (pattern, error) {
	source, isExpression := strings.CutPrefix(text, "~")
	switch {
	case len(text) > MaxPattern:
		return pattern{}, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), MaxPattern)
	case isExpression && letters == anyCase:
		return newExpression(text, "(?i)"+source)
	case isExpression:
		return newExpression(text, source)
	case letters == anyCase:
		return newGlob(lower(text)), nil
	default:
		return newGlob(text), nil
	}
}

// newGlob compiles a pattern that is no regular expression.
func newGlob(text string) pattern {
	between := strings.Split(text, "*")
	if len(between) == 1 {
		return pattern{text: text, literal: len(text)}
	}
	return pattern{form: glob, text: text, literal: len(text) - (len(between) - 1), between: between}
}

func newExpression(text, source string) (pattern, error) {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return pattern{}, err
	}
	if atLeast(tree) > maxSteps {
		return pattern{}, fmt.Errorf("is too large a regular expression: at most %d steps are allowed", maxSteps)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return pattern{}, err
	}
	steps := len(program.Inst)
	if steps > maxSteps {
		return pattern{}, fmt.Errorf("is too large a regular expression: %d steps, at most %d are allowed", steps, maxSteps)
	}
	re, err := regexp.Compile(source)
	return pattern{form: expression, text: text, re: re, steps: steps}, err
}

// atLeast is how many steps an expression takes at least, as far as that matters. A
// kilobyte may take a million: it took half a second and 200 MiB to find that out by
// compiling it.
func atLeast(tree *syntax.Regexp) int {
	steps := len(tree.Rune)
	if tree.Op != syntax.OpLiteral {
		steps = 0
	}
	for _, sub := range tree.Sub {
		steps += atLeast(sub)
	}
	steps = max(1, steps)
	if tree.Op == syntax.OpRepeat {
		steps *= max(1, tree.Min, tree.Max)
	}
	return min(steps, maxSteps+1)
}

func (p *pattern) match(s string) bool {
	switch p.form {
	case glob:
		return p.literal == 0 || len(s) >= p.literal && p.matchGlob(s)
	case expression:
		return p.re.MatchString(s)
	default:
		return p.text == s
	}
}

// matchGlob takes each literal at its first place, which leaves the most to
// those behind it.
func (p *pattern) matchGlob(s string) bool {
	last := len(p.between) - 1
	prefix, suffix := p.between[0], p.between[last]
	if !strings.HasPrefix(s, prefix) || !strings.HasSuffix(s[len(prefix):], suffix) {
		return false
	}
	s = s[len(prefix) : len(s)-len(suffix)]
	for _, literal := range p.between[1:last] {
		i := strings.Index(s, literal)
		if i < 0 {
			return false
		}
		s = s[i+len(literal):]
	}
	return true
}

// implies reports whether every value that p matches is known to match q. What a
// regular expression matches is known of single values only.
//
// Of a glob its text tells it: a star there can only be matched by a star of q,
// which then matches all that the star of p stands for; and if q does not match
// the text, then the text is itself a value that only p matches.
func (p *pattern) implies(q *pattern) bool {
	switch {
	case p.text == q.text:
		return true
	case q.form == glob && q.literal == 0:
		return true
	case p.form == exact:
		return q.match(p.text)
	default:
		return p.form == glob && q.form == glob && q.match(p.text)
	}
}

// lower maps A to Z only: strings.ToLower would turn the Kelvin sign into a k.
func lower(s string) string {
	if !strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
