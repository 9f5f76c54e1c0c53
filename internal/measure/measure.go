// Package measure prints what tests measure beside what is promised, in lines of which
// docs/promises.md is made, and reads them again. It fails no test: a machine that others
// keep busy is no broken program. Who reads a line judges it.
package measure

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// A Quantity has its unit by its type.
type Quantity interface {
	time.Duration | MiB | Times | Percent | Cores | PerSecond
}

type (
	MiB       float64
	Times     float64 // as much as something else
	Percent   float64 // of something else
	Cores     float64 // 1 computes all the time
	PerSecond float64
)

// AtMost prints a value that is to be no more than limit. What shows a promise begins with
// its number, or several: "[6] Peer deleted to its last packet".
func AtMost[Q Quantity](t testing.TB, what string, value, limit Q) {
	t.Helper()
	t.Logf("MEASURED %s: %s, at most %s", what, text(value), text(limit))
}

// AtLeast prints a value that is to be no less than limit.
func AtLeast[Q Quantity](t testing.TB, what string, value, limit Q) {
	t.Helper()
	t.Logf("MEASURED %s: %s, at least %s", what, text(value), text(limit))
}

// text is a quantity to three places behind the point, and its unit.
func text[Q Quantity](q Q) string {
	n, unit := float64(q), ""
	switch any(q).(type) {
	case time.Duration:
		if n, unit = n/1e9, "s"; math.Abs(n) < 1 {
			n, unit = float64(q)/1e6, "ms"
		}
	case MiB:
		unit = "MiB"
	case Times:
		unit = "times"
	case Percent:
		unit = "%"
	case Cores:
		unit = "cores"
	case PerSecond:
		unit = "/s"
	}
	return strconv.FormatFloat(math.Round(n*1000)/1000, 'f', -1, 64) + " " + unit
}

// A Figure is what a line says, without what stands before the name of what was measured.
type Figure struct {
	What  string
	Value string // "850 ms"
	Limit string // "at most 2 s"
	Met   bool
}

func (f Figure) String() string { return fmt.Sprintf("%s: %s, %s", f.What, f.Value, f.Limit) }

// A number that is none, such as a share of nothing, meets no limit.
const quantity = `(-?[0-9]+(?:\.[0-9]{1,3})?|NaN|[+-]Inf) (ms|s|MiB|times|%|cores|/s)`

var form = regexp.MustCompile(`^(.+): (` + quantity + `), ((at most|at least) ` + quantity + `)$`)

// Read reads a Figure; ok is false for any other text.
func Read(line string) (f Figure, ok bool) {
	m := form.FindStringSubmatch(line)
	if m == nil {
		return Figure{}, false
	}
	value, unit, err := number(m[3], m[4])
	limit, same, errLimit := number(m[7], m[8])
	if err != nil || errLimit != nil || unit != same {
		return Figure{}, false
	}
	f = Figure{What: m[1], Value: m[2], Limit: m[5], Met: value <= limit}
	if m[6] == "at least" {
		f.Met = value >= limit
	}
	return f, true
}

// number is a quantity in a unit that can be compared.
func number(text, in string) (n float64, unit string, err error) {
	n, err = strconv.ParseFloat(text, 64)
	if in == "ms" {
		return n / 1000, "s", err
	}
	return n, in, err
}
