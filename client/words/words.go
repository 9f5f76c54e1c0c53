// Package words says what the local API tells in words for people, alike on a
// terminal and on a page. It knows neither.
package words

import (
	"fmt"
	"strings"

	"podnet.dev/internal/steer"
)

// TimeOfDay is the layout of a time to the millisecond.
const TimeOfDay = "15:04:05.000"

// Size is a number of bytes, in units of 1024.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// Milliseconds is a time that something took.
func Milliseconds(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// Refused tells of packets to virtual addresses that nobody had given out.
func Refused(n uint64, last string) string {
	packets := "packets"
	if n == 1 {
		packets = "packet"
	}
	return fmt.Sprintf("refused %d %s to addresses that no name has led to, the last to %s", n, packets, last)
}

// Matches are a rule's sets of conditions, a line each.
func Matches(all []steer.Match) []string {
	if len(all) == 0 {
		return []string{"all that reaches the port"}
	}
	var out []string
	for _, m := range all {
		var parts []string
		for _, h := range m.Headers {
			parts = append(parts, "header "+h.Name+": "+h.Value)
		}
		for _, q := range m.Query {
			parts = append(parts, "query "+q.Name+"="+q.Value)
		}
		for _, c := range []struct{ name, pattern string }{{"method", m.Method}, {"host", m.Host}, {"path", m.Path}, {"grpc", m.GRPC}} {
			if c.pattern != "" {
				parts = append(parts, c.name+" "+c.pattern)
			}
		}
		out = append(out, Line(strings.Join(parts, ", ")))
	}
	return out
}

// Choice is a list of words in a sentence.
func Choice(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
