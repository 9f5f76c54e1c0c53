package measure

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// paper is what a test has printed.
type paper struct {
	testing.TB
	line string
}

func (p *paper) Helper()                           {}
func (p *paper) Logf(format string, values ...any) { p.line = fmt.Sprintf(format, values...) }

// TestPrintedIsRead: each way to print, and what is read of it.
func TestPrintedIsRead(t *testing.T) {
	for _, c := range []struct {
		print func(testing.TB)
		want  string
		met   bool
	}{
		{func(t testing.TB) { AtMost(t, "x", 850*time.Millisecond, 2*time.Second) }, "x: 850 ms, at most 2 s", true},
		{func(t testing.TB) { AtMost(t, "x", 2*time.Second, 2*time.Second) }, "x: 2 s, at most 2 s", true},
		{func(t testing.TB) { AtMost(t, "x", 2*time.Second+time.Millisecond, 2*time.Second) }, "x: 2.001 s, at most 2 s", false},
		{func(t testing.TB) { AtMost(t, "x", 122818*time.Millisecond, 125*time.Second) }, "x: 122.818 s, at most 125 s", true},
		{func(t testing.TB) { AtMost(t, "x", 117123*time.Nanosecond, 300*time.Microsecond) }, "x: 0.117 ms, at most 0.3 ms", true},
		{func(t testing.TB) { AtMost(t, "x", -40*time.Millisecond, 300*time.Microsecond) }, "x: -40 ms, at most 0.3 ms", true},
		{func(t testing.TB) { AtMost(t, "a: b, at most 1 s: x", time.Minute, time.Second) }, "a: b, at most 1 s: x: 60 s, at most 1 s", false},
		{func(t testing.TB) { AtMost(t, "x", MiB(300.04), 300) }, "x: 300.04 MiB, at most 300 MiB", false},
		{func(t testing.TB) { AtMost(t, "x", Times(1.25), 2) }, "x: 1.25 times, at most 2 times", true},
		{func(t testing.TB) { AtMost(t, "x", Times(math.NaN()), 2) }, "x: NaN times, at most 2 times", false},
		{func(t testing.TB) { AtMost(t, "x", Times(math.Inf(1)), 2) }, "x: +Inf times, at most 2 times", false},
		{func(t testing.TB) { AtMost(t, "x", Cores(0.106), 0.2) }, "x: 0.106 cores, at most 0.2 cores", true},
		{func(t testing.TB) { AtMost(t, "x", PerSecond(45.1), 45) }, "x: 45.1 /s, at most 45 /s", false},
		{func(t testing.TB) { AtLeast(t, "x", Percent(70), 70) }, "x: 70 %, at least 70 %", true},
		{func(t testing.TB) { AtLeast(t, "x", Percent(69.9), 70) }, "x: 69.9 %, at least 70 %", false},
		{func(t testing.TB) { AtLeast(t, "x", Percent(math.NaN()), 70) }, "x: NaN %, at least 70 %", false},
	} {
		p := &paper{}
		c.print(p)
		line, ok := strings.CutPrefix(p.line, "MEASURED ")
		if !ok || line != c.want {
			t.Errorf("%q, want %q", p.line, c.want)
		}
		if f, ok := Read(line); !ok || f.String() != line || f.Met != c.met {
			t.Errorf("%s: read %+v, %v", line, f, ok)
		}
	}
}

// TestOtherTextIsNoFigure: what only looks like one is not judged.
func TestOtherTextIsNoFigure(t *testing.T) {
	for _, line := range []string{
		"",
		"x: 850ms",
		"x (2 s): 850ms",          // as they were once
		"x: 850ms, at most 2s",    // as Go prints times
		": 1 s, at most 2 s",      // of nothing
		"x: 1, at most 2",         // without a unit
		"x: 1 s, at most 2 MiB",   // two things
		"x: 1 KiB, at most 2 KiB", // a unit that is not used
		"x: 1e3 s, at most 2e3 s", // not as it is printed
		"x: 0x1p3 s, at most 2 s",
		"x: 1.2345 s, at most 2 s",
		"x: Inf s, at most 2 s",
		"x: 1 s, at most 2 s; half 3 s", // more behind it
		"x: 1 s, at most 2 s\n",
		"x\ny: 1 s, at most 2 s",
		"x: 1 s,  at most 2 s",
		"x: 1 s, less than 2 s",
		"x: 1 s",
		"x: " + strings.Repeat("9", 400) + " s, at most 2 s", // no number of 64 bits
	} {
		if f, ok := Read(line); ok {
			t.Errorf("%q is read as %+v", line, f)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("Peer deleted to its last packet: 850 ms, at most 2 s")
	f.Add("x: 1 s, at most 2 s: 3 %, at least 70 %")
	f.Add("x: NaN times, at most -Inf times")
	f.Fuzz(func(t *testing.T, line string) {
		if f, ok := Read(line); ok && (f.String() != line || f.Met && strings.HasPrefix(f.Value, "NaN")) {
			t.Errorf("%q is read as %+v", line, f)
		}
	})
}
