package main

import (
	"fmt"
	"slices"
)

// result are the figures that one system gave in one round, by name; what it does
// not have (a CPU of a gateway that there is not) is left out.
type result map[string]float64

// figure is one line of the report.
type figure struct {
	name   string // in result, and of the benchmark in the text for benchstat
	title  string
	unit   string
	format string
	less   bool // the less the better
	goals  []goal
}

// goal is one of the design's (performance.md), of podnet's figure as a ratio to
// another system's in the same run, or, with no other, of the figure itself.
type goal struct {
	mode  string // "": any
	other string
	limit float64
}

// The figures, and their goals as the design has them.
var figures = []figure{
	{name: "TCPUp1", title: "TCP up, 1 flow", unit: "Gbit/s", format: "%.2f", goals: up},
	{name: "TCPDown1", title: "TCP down, 1 flow", unit: "Gbit/s", format: "%.2f", goals: down},
	{name: "TCPUp8", title: "TCP up, 8 flows", unit: "Gbit/s", format: "%.2f", goals: up},
	{name: "TCPDown8", title: "TCP down, 8 flows", unit: "Gbit/s", format: "%.2f", goals: down},
	{name: "CPUUp8", title: "gateway's CPU up", unit: "s/Gbit", format: "%.3f", less: true, goals: []goal{{"pass", upstream, 0.75}, {"seg", upstream, 0.35}}},
	{name: "CPUDown8", title: "gateway's CPU down", unit: "s/Gbit", format: "%.3f", less: true, goals: []goal{{"pass", upstream, 0.9}, {"seg", upstream, 0.6}}},
	{name: "RTTP50", title: "round trip p50", unit: "us", format: "%.0f", less: true, goals: []goal{{"", upstream, 1.4}}},
	{name: "RTTP99", title: "round trip p99", unit: "us", format: "%.0f", less: true, goals: []goal{{"", upstream, 1.4}}},
	{name: "RTTP50Up8", title: "round trip p50 beside 8 flows up", unit: "ms", format: "%.1f", less: true},
	{name: "RTTP99Up8", title: "round trip p99 beside 8 flows up", unit: "ms", format: "%.1f", less: true, goals: []goal{{limit: 10}}},
	{name: "RTTP50Down8", title: "round trip p50 beside 8 flows down", unit: "ms", format: "%.1f", less: true},
	{name: "RTTP99Down8", title: "round trip p99 beside 8 flows down", unit: "ms", format: "%.1f", less: true, goals: []goal{{limit: 10}}},
	{name: "Connects", title: "connections, 16 at a time", unit: "1/s", format: "%.0f", goals: []goal{{"", upstream, 0.8}}},
	{name: "ConnectsFailed", title: "connections that failed", unit: "n", format: "%.0f", less: true, goals: []goal{{limit: 0}}},
	{name: "UDPUp", title: "UDP 1200 B up, < 1 % lost", unit: "1/s", format: "%.0f", goals: []goal{{"", upstream, 1}}},
	{name: "UDPDown", title: "UDP 1200 B down, < 1 % lost", unit: "1/s", format: "%.0f", goals: []goal{{"", upstream, 1}}},
	{name: "MemoryIdle", title: "gateway's memory idle", unit: "MB", format: "%.0f", less: true, goals: []goal{{limit: 16}}},
	{name: "MemoryOwn", title: "of it not its program's file", unit: "MB", format: "%.0f", less: true},
	{name: "MemoryAfter", title: "gateway's memory after all this", unit: "MB", format: "%.0f", less: true, goals: []goal{{limit: 80}}},
	{name: "MemoryPeak", title: "gateway's memory at most", unit: "MB", format: "%.0f", less: true},
	{name: "MemoryFlow", title: "gateway's memory of an idle flow", unit: "KB", format: "%.1f", less: true, goals: []goal{{limit: 12}}},
}

var (
	up   = []goal{{"pass", upstream, 1.9}, {"seg", upstream, 3}, {"", yardNetstack, 2.1}}
	down = []goal{{"pass", upstream, 1.2}, {"seg", upstream, 2.4}, {"", yardNetstack, 6}}
)

func figureNames() (names []string) {
	for _, f := range figures {
		names = append(names, f.name)
	}
	return names
}

// met judges podnet's figure; ok is false where one of the two is missing.
func (f figure) met(g goal, of map[string]float64) (value float64, met, ok bool) {
	value, ok = of[podnet]
	if ok && g.other != "" {
		var other float64
		if other, ok = of[g.other]; ok && other > 0 {
			value /= other
		} else {
			ok = false
		}
	}
	if f.less {
		return value, value <= g.limit, ok
	}
	return value, value >= g.limit, ok
}

// text is a goal and how it was met, or "".
func (f figure) text(g goal, of map[string]float64) string {
	value, met, ok := f.met(g, of)
	if !ok {
		return ""
	}
	sign, verdict := ">=", "met"
	if f.less {
		sign = "<="
	}
	if !met {
		verdict = "NOT met"
	}
	if g.other == "" {
		return fmt.Sprintf("%s %v %s: %s", sign, g.limit, f.unit, verdict)
	}
	return fmt.Sprintf("%.2f of %s, %s %v: %s", value, g.other, sign, g.limit, verdict)
}

// median is the middle of the values, or the mean of the two in the middle; there is
// one at least.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
