package steer

import (
	"net/url"
	"regexp/syntax"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func parse(t testing.TB, text string, letters letters) *pattern {
	t.Helper()
	p, err := parsePattern(text, letters)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return &p
}

// What is too large is refused before it takes memory, and nothing else is.
func TestSizeOfExpressions(t *testing.T) {
	for _, text := range []string{
		"(" + strings.Repeat("a", 1000) + "){1000}", "(" + strings.Repeat("[ab]", 250) + "){1000}", strings.Repeat(`\pL{999}`, 110), strings.Repeat("(a?){900}", 100),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parsePattern("~"+text, asWritten)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%.20s... is accepted", text)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
			t.Errorf("to refuse %.20s... took %d MiB", text, took>>20)
		}
	}
	for _, text := range []string{
		"", "a", "abc", "(?i)abc", "a|b|c", "abc|abd", "(a*)*", "(a*)+", "((a))", "[a-z]", ".", "^$", `\b`, "a{0}", "a{0,0}b", "a{3}", "a{3,}", "a{0,}", "a{1,}", "a{2,5}",
		"(ab){3}", "(a{3}){3}", "(|a)", "(?:|a){3}", "(^a){3}", "a??", "a*?", "a{2,5}?", "()", "(){3}", `\w{240}`,
	} {
		tree, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		least := atLeast(tree)
		program, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if steps := len(program.Inst); least > steps {
			t.Errorf("%q has %d steps and not at least %d", text, steps, least)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a"}},
		{"a", []string{"a"}, []string{"", "A", "aa"}},
		{"*", []string{"", "a", "*", "\xff"}, nil},
		{"**", []string{"", "a"}, nil},
		{"a*", []string{"a", "ab", "a*"}, []string{"", "ba"}},
		{"*a", []string{"a", "ba"}, []string{"", "ab"}},
		{"a*a", []string{"aa", "aba"}, []string{"a", "ab"}},
		{"*ab*ab*", []string{"abab", "xabxabx"}, []string{"ab", "aba", "bab"}},
		{"a*bc*c", []string{"abcc", "abcbc"}, []string{"abc"}},
		{"[a]?.", []string{"[a]?."}, []string{"a."}},
		{`\*`, []string{`\`, `\x`}, []string{"*"}},
		{"a~", []string{"a~"}, []string{"a"}},
		{"~", []string{"", "a"}, nil},
		{"~b+", []string{"b", "abba"}, []string{"", "a"}},
		{"~^~$", []string{"~"}, []string{"~~"}},
	} {
		p := parse(t, test.pattern, asWritten)
		for _, s := range test.yes {
			if !p.match(s) {
				t.Errorf("%q does not match %q", test.pattern, s)
			}
		}
		for _, s := range test.no {
			if p.match(s) {
				t.Errorf("%q matches %q", test.pattern, s)
			}
		}
	}
}

func TestImplies(t *testing.T) {
	for _, test := range []struct {
		p, q string
		want bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"/api/cart", "/api/*", true},
		{"/api/*", "/api/cart", false},
		{"/api/*", "/*", true},
		{"/*", "/api/*", false},
		{"a*b*c", "a*c", true},
		{"a*c", "a*b*c", false},
		{"*a*", "*", true},
		{"*", "**", true},
		{"**", "*", true},
		{"alice", "~^al", true},
		{"bob", "~^al", false},
		{"al*", "~^al", false}, // true, but nobody knows
		{"~^al", "~^al", true},
		{"~^al", "~^a", false}, // as well
		{"~^al", "*", true},
		{"~^al", "al*", false},
		{"~^$", "", false},
	} {
		if got := parse(t, test.p, asWritten).implies(parse(t, test.q, asWritten)); got != test.want {
			t.Errorf("%q implies %q: %v, want %v", test.p, test.q, got, test.want)
		}
	}
}

// slowGlob is what a star means, and nothing else.
func slowGlob(p, s string) bool {
	// matched[i] says whether the pattern so far matches the first i bytes of s.
	matched := make([]bool, len(s)+1)
	matched[0] = true
	for k := range len(p) {
		next := make([]bool, len(s)+1)
		for i := range next {
			if p[k] == '*' {
				next[i] = matched[i] || i > 0 && next[i-1]
			} else {
				next[i] = i > 0 && matched[i-1] && s[i-1] == p[k]
			}
		}
		matched = next
	}
	return matched[len(s)]
}

// FuzzPattern: patterns never panic, globs mean what slowGlob says, and what one
// pattern is known to imply of another holds.
func FuzzPattern(f *testing.F) {
	f.Add("alice", "al*", "alice")
	f.Add("/api/*", "/*", "/api/cart")
	f.Add("*ab*ab*", "a*b", "xabxab")
	f.Add("~^v[12]$", "v*", "v1")
	f.Add(`~\w{1000}`, "~(", "a")
	f.Add("a*a", "**", "a")
	f.Fuzz(func(t *testing.T, first, second, value string) {
		p, err := parsePattern(first, asWritten)
		if err != nil {
			return
		}
		if len(first) > MaxPattern {
			t.Fatal("no limit")
		}
		got := p.match(value)
		if p.form != expression && len(value) < 1000 && got != slowGlob(first, value) {
			t.Fatalf("%q matches %q: %v", first, value, got)
		}
		if c, err := parsePattern(first, anyCase); err == nil && got && p.form != expression && !c.match(lower(value)) {
			t.Fatalf("%q does not match %q in any case", first, value)
		}
		q, err := parsePattern(second, asWritten)
		if err != nil {
			return
		}
		if got && p.implies(&q) && !q.match(value) {
			t.Fatalf("%q implies %q, but only it matches %q", first, second, value)
		}
	})
}

// FuzzQuery holds our reading of a query against the one of net/url.
func FuzzQuery(f *testing.F) {
	f.Add("user=alice&a=1", "user", "alice")
	f.Add("u%73er=al+ice", "user", "al ice")
	f.Add("a;user=alice&user=%zz&user", "user", "")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		if name == "" || strings.Count(query, "&") > 1000 {
			return
		}
		values, _ := url.ParseQuery(query) // it leaves out what it complains of
		c := condition{name: name, value: pattern{text: value}}
		if got, want := c.inQuery(query), slices.Contains(values[name], value); got != want {
			t.Fatalf("%q has %q=%q: %v, want %v", query, name, value, got, want)
		}
	})
}
