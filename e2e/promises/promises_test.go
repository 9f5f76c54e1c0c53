package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/measure"
)

const top = "../.."

// stated is how many statements there are for sure: those that podnet set out with.
const stated = 59

func TestEveryNumberIsThereOnce(t *testing.T) {
	var numbers []int
	for _, s := range promises {
		for _, p := range s.promises {
			numbers = append(numbers, p.number)
			if p.says == "" {
				t.Errorf("promise %d says nothing", p.number)
			}
			if strings.Contains(p.says+p.missing+p.instead, "\n") {
				t.Errorf("promise %d has more than one line: a table's row has not", p.number)
			}
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 {
			t.Fatalf("after %d comes %d", i, n)
		}
	}
	if len(numbers) < stated {
		t.Errorf("%d promises, want %d", len(numbers), stated)
	}
}

func TestEveryTestExists(t *testing.T) {
	text := map[string]string{}
	for _, s := range promises {
		for _, p := range s.promises {
			for i, shows := range p.shown {
				if slices.Contains(p.shown[:i], shows) {
					t.Errorf("promise %d names %s twice", p.number, shows)
				}
				if text[shows.in] == "" {
					text[shows.in] = source(t, shows.in)
				}
				if !strings.Contains(text[shows.in], "\nfunc "+shows.name+"(t *testing.T)") {
					t.Errorf("promise %d: there is no %s", p.number, shows)
				}
			}
		}
	}
}

// source is the text of all tests of a folder.
func source(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(top, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return "\n" + all.String()
}

// TestFiguresHaveAPlace: a figure with the number of a promise that does not name
// the folder where it is printed would be shown nowhere.
func TestFiguresHaveAPlace(t *testing.T) {
	in := map[int][]string{}
	folders := map[string]bool{}
	for _, s := range promises {
		for _, p := range s.promises {
			for _, shows := range p.shown {
				in[p.number] = append(in[p.number], shows.in)
				folders[shows.in] = true
			}
		}
	}
	numbered := regexp.MustCompile(`"(?:MEASURED )?\[([0-9, ]+)\] `)
	for dir := range folders {
		for _, m := range numbered.FindAllStringSubmatch(source(t, dir), -1) {
			numbers, _ := readFigure("MEASURED [" + m[1] + "] x")
			for _, n := range numbers {
				if !slices.Contains(in[n], dir) {
					t.Errorf("%s prints a figure of promise %d, which names no test of it", dir, n)
				}
			}
		}
	}
}

// TestLimitsAreSaid: each limit is as a test prints it, and its number is in what is promised.
func TestLimitsAreSaid(t *testing.T) {
	for _, s := range promises {
		for _, p := range s.promises {
			for _, limit := range p.limits {
				words := strings.SplitN(limit, " ", 3) // at most QUANTITY
				f, ok := measure.Read("x: " + words[len(words)-1] + ", " + limit)
				if !ok || f.Limit != limit {
					t.Fatalf("promise %d: no test prints %q", p.number, limit)
				}
				number, _, _ := strings.Cut(f.Value, " ")
				if !slices.Contains(strings.FieldsFunc(p.says, func(c rune) bool { return strings.ContainsRune(" ,;()", c) }), number) {
					t.Errorf("promise %d does not say %s", p.number, limit)
				}
			}
		}
	}
}

// TestLimits: what a promise is worth by what its tests have measured.
func TestLimits(t *testing.T) {
	a, b := test{in: "x", name: "TestA"}, test{in: "x", name: "TestB"}
	p := promise{number: 6, shown: []test{a, b}, limits: []string{"at most 2 s", "at most 64 MiB"}}
	for _, c := range []struct {
		what       string
		a, b       []string // measured
		want       colour
		unmeasured []string
	}{
		{"both are met", []string{"x: 2 s, at most 2 s"}, []string{"y: 60 MiB, at most 64 MiB"}, green, nil},
		{"by a test that measured twice", []string{"x: 1 s, at most 2 s", "by hand: 1 s", "x: 2.001 s, at most 2 s"}, []string{"y: 60 MiB, at most 64 MiB"}, red, nil},
		{"by one test of two", []string{"x: 1 s, at most 2 s", "y: 60 MiB, at most 64 MiB"}, []string{"x: 3 s, at most 2 s"}, red, nil},
		{"a limit that is not named", []string{"x: 1 s, at most 2 s", "y: 60 MiB, at most 64 MiB"}, []string{"z: 30 %, at least 70 %"}, red, nil},
		{"one was not measured", []string{"x: 1 s, at most 2 s"}, nil, amber, []string{"at most 64 MiB"}},
		{"nor was the other, and it is not met", nil, []string{"y: 65 MiB, at most 64 MiB"}, red, []string{"at most 2 s"}},
		{"measured against another limit", []string{"x: 1 s, at most 4 s"}, []string{"y: 60 MiB, at most 64 MiB"}, amber, []string{"at most 2 s"}},
		{"as tests once printed it", []string{"x (2 s): 850ms"}, []string{"y: 60 MiB resident (64 MiB)"}, amber, p.limits},
	} {
		r := results{
			a.String(): {Outcome: passed, Measured: map[int][]string{6: c.a, 7: {"x: 9 s, at most 2 s"}}},
			b.String(): {Outcome: passed, Measured: map[int][]string{6: c.b}},
		}
		got, why := p.colour(r)
		if got != c.want || (got == red) != strings.Contains(why, "not met: ") {
			t.Errorf("%s: %s, %q; want %s", c.what, got, why, c.want)
		}
		if got := p.unmeasured(r); !slices.Equal(got, c.unmeasured) {
			t.Errorf("%s: %q were not measured, want %q", c.what, got, c.unmeasured)
		}
	}
}

// TestPageIsUpToDate: what the table and the last run say is on the page.
func TestPageIsUpToDate(t *testing.T) {
	r, err := read("results.json")
	if err != nil {
		t.Fatal(err)
	}
	r.prune(promises)
	want, err := os.ReadFile(filepath.Join(top, pageFile))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), page(promises, r)); d != "" {
		t.Errorf("%s differs; `go run ./e2e/promises -page` writes it:\n%s", pageFile, d)
	}
}

func TestColours(t *testing.T) {
	a, b := test{in: "x", name: "TestA"}, test{in: "x", name: "TestB", long: true}
	r := results{a.String(): {Outcome: passed}, b.String(): {Outcome: skipped}}
	for _, c := range []struct {
		what string
		p    promise
		want colour
	}{
		{"no test", promise{}, red},
		{"no test, although there is a reason", promise{missing: "all", instead: "nothing"}, red},
		{"a test that passed", promise{shown: []test{a}}, green},
		{"elsewhere", promise{shown: []test{a}, instead: "built for it"}, green},
		{"a part", promise{shown: []test{a}, missing: "the rest"}, amber},
		{"a test that was skipped", promise{shown: []test{a, b}}, red},
		{"a part that was skipped", promise{shown: []test{b}, missing: "the rest"}, red},
		{"a test that never ran", promise{shown: []test{{in: "x", name: "TestA", long: true}}}, red},
	} {
		if got, why := c.p.colour(r); got != c.want || (got == red) != (why != "") {
			t.Errorf("%s: %s, %q; want %s", c.what, got, why, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	a := test{in: "x", name: "TestA"}
	all := []section{{"", []promise{{number: 1}, {number: 2, shown: []test{a}}}}, {"", []promise{{number: 3}}}}
	r := results{a.String(): {Outcome: passed}}
	for words, want := range map[string][]int{"": {1, 2, 3}, "2": {2}, "1-2": {1, 2}, "rest": {1, 3}, "rest 2": {1, 2, 3}, "3 1": {1, 3}} {
		got, err := choose(strings.Fields(words), all, r)
		var numbers []int
		for _, p := range got {
			numbers = append(numbers, p.number)
		}
		if err != nil || !slices.Equal(numbers, want) {
			t.Errorf("%q: %v, %v; want %v", words, numbers, err, want)
		}
	}
	for _, words := range []string{"4", "x", "2-1", "-1"} {
		if _, err := choose([]string{words}, all, r); err == nil {
			t.Errorf("%q is taken", words)
		}
	}
}

func TestGroups(t *testing.T) {
	got := groups([]promise{
		{shown: both(short("e2e", "TestB"), long("e2e", "TestC"), short("gateway", "TestA"))},
		{shown: both(short("gateway", "TestA", "TestD"), long("gateway", "TestA"))},
	})
	want := []group{{"gateway", false, []string{"TestA", "TestD"}}, {"e2e", false, []string{"TestB"}}, {"gateway", true, []string{"TestA"}}, {"e2e", true, []string{"TestC"}}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(group{})); d != "" {
		t.Error(d)
	}
}

func TestFollow(t *testing.T) {
	const said = `{"Action":"start","Package":"p"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"    a_test.go:7: MEASURED [6] gone after (2 s)        1.5 s\n"}
{"Action":"run","Test":"TestA/part"}
{"Action":"output","Test":"TestA/part","Output":"    a_test.go:8: MEASURED [6, 7] and so on  2\n"}
{"Action":"output","Test":"TestA","Output":"    a_test.go:9: MEASURED [6] gone, the last: 2.1 s, at most 2 s\n"}
{"Action":"fail","Test":"TestA/part","Elapsed":1}
{"Action":"output","Test":"TestB","Output":"it is broken\n"}
{"Action":"pass","Test":"TestA","Elapsed":2.5}
{"Action":"fail","Test":"TestB","Elapsed":1}
{"Action":"skip","Test":"TestC","Elapsed":0}
{"Action":"output","Test":"TestD","Output":"panic: oh\n"}
{"Action":"output","Output":"exit status 2\n"}
{"Action":"fail","Elapsed":4}
{"Action":"output","Output":"ok\n"}
{"Action":"pass","Elapsed":4}
no JSON
`
	var shown strings.Builder
	got := map[string]result{}
	follow(strings.NewReader(said), &shown, func(_, name string, r result) { got[name] = r })
	want := map[string]result{
		"TestA": {Outcome: passed, Seconds: 2.5, Measured: map[int][]string{6: {"gone after (2 s): 1.5 s", "and so on: 2", "gone, the last: 2.1 s, at most 2 s"}, 7: {"and so on: 2"}}},
		"TestB": {Outcome: failed, Seconds: 1, Measured: map[int][]string{}},
		"TestC": {Outcome: skipped},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, piece := range []string{"it is broken", "panic: oh", "exit status 2", "no JSON"} {
		if !strings.Contains(shown.String(), piece) {
			t.Errorf("%q is not shown", piece)
		}
	}
	if strings.Contains(shown.String(), "gone after") || strings.Contains(shown.String(), "ok\n") {
		t.Error("what a good test says is shown")
	}
}

// TestWhatOtherRunsSaid is told of in both ways that go test has.
func TestWhatOtherRunsSaid(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	r := results{}
	for _, s := range []saying{
		{write("unit.json", `{"Action":"pass","Package":"podnet.dev/gateway","Test":"TestA","Elapsed":1}
{"Action":"fail","Package":"podnet.dev/client","Test":"TestA","Elapsed":1}
`), "abc", false},
		{write("v.log", `Mon Nov 23 02:38:05 UTC 2026
=== RUN   TestB
    b_test.go:1: MEASURED [6] so fast  2 s
--- PASS: TestB (0.50s)
=== RUN   TestC
--- SKIP: TestC (0.00s)
PASS
ok  	podnet.dev/deploy	0.6s
=== RUN   TestD
--- FAIL: TestD (3.00s)
FAIL
`), "def", true},
	} {
		if err := r.hear(s); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for name, one := range r {
		got[name] = string(one.Outcome) + " at " + one.Commit
	}
	want := map[string]string{"gateway TestA": "passed at abc", "client TestA": "failed at abc", "deploy TestB": "passed at def", "deploy TestB (long)": "passed at def",
		"deploy TestC (long)": "skipped at def", "e2e TestD (long)": "failed at def"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"so fast: 2 s"}, r["deploy TestB (long)"].Measured[6]); d != "" {
		t.Error(d)
	}
	if err := r.hear(saying{file: write("empty.log", "nothing\n")}); err == nil {
		t.Error("nothing is a run")
	}
}
