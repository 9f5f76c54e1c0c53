package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

var ran = record{Kernel: "6.18", Samples: []sample{
	{"pass", upstream, 1, result{"TCPUp1": 1, "RTTP99": 100, "CPUUp8": 0.4}},
	{"pass", podnet, 1, result{"TCPUp1": 1, "RTTP99": 120, "RTTP99Up8": 12, "CPUUp8": 0.2}},
	{"pass", upstream, 2, result{"TCPUp1": 2, "RTTP99": 100, "CPUUp8": 0.4}},
	{"pass", podnet, 2, result{"TCPUp1": 4, "RTTP99": 130, "RTTP99Up8": 14, "CPUUp8": 0.2}},
	{"pass", upstream, 3, result{"TCPUp1": 1.5, "RTTP99": 300, "CPUUp8": 0.4}},
	{"pass", podnet, 3, result{"TCPUp1": 3, "RTTP99": 170, "RTTP99Up8": 8, "CPUUp8": 0.2}},
}}

// Medians are compared, each with its own goals, and what is missed is said.
func TestReportJudgesMedians(t *testing.T) {
	var b bytes.Buffer
	ran.report(&b)
	for title, want := range map[string]string{
		"TCP up, 1 flow":                   "1.50 3.00 2.00 of wireguard-go, >= 1.9: met",
		"round trip p99, us":               "100 130 1.30 of wireguard-go, <= 1.4: met",
		"round trip p99 beside 8 flows up": "- 12.0 <= 10 ms: NOT met",
		"gateway's CPU up":                 "0.400 0.200 0.50 of wireguard-go, <= 0.75: met",
	} {
		found := false
		for line := range strings.Lines(b.String()) {
			if strings.HasPrefix(line, title) {
				found = true
				if got := strings.Join(strings.Fields(line), " "); !strings.HasSuffix(got, want) {
					t.Errorf("%q, want it to end in %q", got, want)
				}
			}
		}
		if !found {
			t.Errorf("no line for %q in\n%s", title, b.String())
		}
	}
	if strings.Contains(b.String(), "UDP") {
		t.Error("a line for what nobody measured")
	}
}

func TestBenchfmt(t *testing.T) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	(&record{Kernel: "6.18", Samples: []sample{{"seg", plain, 1, result{"TCPUp1": 1.25, "UDPUp": 2e5}}}}).benchfmt(w)
	w.Flush()
	want := "BenchmarkTCPUp1/mode=seg/system=plain-client 1 1.25 Gbit/s\nBenchmarkUDPUp/mode=seg/system=plain-client 1 200000 1/s\n"
	if got := b.String(); !strings.HasSuffix(got, want) {
		t.Errorf("%q, want it to end in %q", got, want)
	}
}
