package ui

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The room of a plot, in its own units; the page stretches it.
const (
	plotWidth  = 600
	plotHeight = 100
)

// plotSpan is the shortest time that a plot shows, so that its first seconds do not
// fill it.
const plotSpan = 20 * time.Second

// plot is one picture: lines over time, the newest value at the right.
type plot struct {
	Title string // what the picture says, for those who do not see it
	Lines []line
	Top   string // the value at its upper edge
	Span  string // the time that its width is
}

// line is one series. Stroke and Area are paths of SVG; a gap in the values is one in
// the line.
type line struct {
	Name, Class, Now string
	Stroke, Area     string
}

// value is one point: negative is none.
type value struct {
	at time.Time
	v  float64
}

// lines draws series into the same room: all have the same scale, from 0 to top.
func lines(span time.Duration, now time.Time, top float64, series ...[]value) []line {
	out := make([]line, len(series))
	for i, values := range series {
		var stroke, area strings.Builder
		var last float64
		drawing := false
		end := func() {
			if drawing {
				fmt.Fprintf(&area, "L%.1f %dZ", last, plotHeight)
			}
			drawing = false
		}
		for _, p := range values {
			x := plotWidth * (1 - float64(now.Sub(p.at))/float64(span))
			if x < 0 {
				continue
			}
			if p.v < 0 {
				end()
				continue
			}
			y := plotHeight * (1 - min(p.v/top, 1))
			if drawing {
				fmt.Fprintf(&stroke, "L%.1f %.1f", x, y)
			} else {
				fmt.Fprintf(&stroke, "M%.1f %.1f", x, y)
				fmt.Fprintf(&area, "M%.1f %d", x, plotHeight)
			}
			fmt.Fprintf(&area, "L%.1f %.1f", x, y)
			last, drawing = x, true
		}
		end()
		out[i].Stroke, out[i].Area = stroke.String(), area.String()
	}
	return out
}

// spanOf is the time that a plot of samples shows.
func spanOf(all []sample) time.Duration {
	if len(all) == 0 {
		return plotSpan
	}
	return max(plotSpan, all[len(all)-1].at.Sub(all[0].at))
}

// roundTrips is the plot of a session's round trip times.
func roundTrips(all []sample) plot {
	values := make([]value, len(all))
	highest := 0.0
	for i, s := range all {
		values[i] = value{s.at, s.rtt}
		if s.rtt <= 0 {
			values[i].v = -1
		}
		highest = max(highest, s.rtt)
	}
	top := niceAbove(highest, 1)
	p := plot{Top: fmt.Sprintf("%g ms", top), Span: spanWords(all), Lines: lines(spanOf(all), newest(all), top, values)}
	l := &p.Lines[0]
	l.Name, l.Class, l.Now = "round trip", "rtt", "no answer"
	if n := len(values); n > 0 && values[n-1].v >= 0 {
		l.Now = fmt.Sprintf("%.1f ms", values[n-1].v)
	}
	p.Title = fmt.Sprintf("Round trip, last %s: now %s, at most %.1f ms", p.Span, l.Now, highest)
	return p
}

// throughput is the plot of what a session received and sent.
func throughput(all []sample) plot {
	var rx, tx []value
	highest := 0.0
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		secs := b.at.Sub(a.at).Seconds()
		if secs <= 0 || b.rx < a.rx || b.tx < a.tx {
			continue // another session of that name
		}
		r, t := float64(b.rx-a.rx)/secs, float64(b.tx-a.tx)/secs
		rx, tx = append(rx, value{b.at, r}), append(tx, value{b.at, t})
		highest = max(highest, r, t)
	}
	unit := 1024.0
	for highest >= 1024*unit {
		unit *= 1024
	}
	top := niceAbove(highest, unit)
	p := plot{Top: rate(top), Span: spanWords(all), Lines: lines(spanOf(all), newest(all), top, rx, tx)}
	for i, what := range []struct{ name, class string }{{"received", "rx"}, {"sent", "tx"}} {
		l := &p.Lines[i]
		l.Name, l.Class, l.Now = what.name, what.class, rate(0)
		if values := [][]value{rx, tx}[i]; len(values) > 0 {
			l.Now = rate(values[len(values)-1].v)
		}
	}
	p.Title = fmt.Sprintf("Throughput, last %s: now %s received, %s sent, at most %s", p.Span, p.Lines[0].Now, p.Lines[1].Now, rate(highest))
	return p
}

func newest(all []sample) time.Time {
	if len(all) == 0 {
		return time.Time{}
	}
	return all[len(all)-1].at
}

func spanWords(all []sample) string {
	secs := int(spanOf(all).Round(time.Second) / time.Second)
	if secs < 120 {
		return fmt.Sprintf("%d s", secs)
	}
	return fmt.Sprintf("%d min", (secs+30)/60)
}

// niceAbove is the next of 1, 2 and 5 times a power of ten, in units of unit, that v
// stays below; at least 1 of them.
func niceAbove(v, unit float64) float64 {
	v = max(v/unit, 0.1) * 1.05
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 2, 5, 10} {
		if v <= n*p {
			return max(n*p, 1) * unit
		}
	}
	return 10 * p * unit
}
