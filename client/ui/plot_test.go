package ui

import (
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

func TestRoundTrips(t *testing.T) {
	now := time.Now()
	at := func(secondsAgo int, rtt float64) sample {
		return sample{at: now.Add(-time.Duration(secondsAgo) * time.Second), rtt: rtt}
	}
	p := roundTrips([]sample{at(30, 10), at(20, 20), at(10, 0), at(5, 10), at(0, 5)})
	l := p.Lines[0]
	if l.Stroke != "M0.0 80.0L200.0 60.0M500.0 80.0L600.0 90.0" { // a gap where nobody answered
		t.Errorf("stroke %s", l.Stroke)
	}
	if l.Area != "M0.0 100L0.0 80.0L200.0 60.0L200.0 100ZM500.0 100L500.0 80.0L600.0 90.0L600.0 100Z" {
		t.Errorf("area %s", l.Area)
	}
	if p.Top != "50 ms" || p.Span != "30 s" || l.Now != "5.0 ms" || p.Title != "Round trip, last 30 s: now 5.0 ms, at most 20.0 ms" {
		t.Errorf("%+v", p)
	}
	if p := roundTrips([]sample{at(1, 10), at(0, 0)}); p.Lines[0].Now != "no answer" || !strings.Contains(p.Title, "now no answer") {
		t.Errorf("%+v", p)
	}
	if p := roundTrips(nil); p.Lines[0].Stroke != "" || p.Lines[0].Now != "no answer" {
		t.Errorf("of nothing: %+v", p)
	}
}

func TestThroughput(t *testing.T) {
	now := time.Now()
	at := func(secondsAgo int, rx, tx int64) sample {
		return sample{now.Add(-time.Duration(secondsAgo) * time.Second), 1, rx, tx}
	}
	p := throughput([]sample{at(4, 5000, 0), at(3, 0, 0), at(2, 100<<10, 0), at(0, 100<<10, 8<<10)})
	if p.Lines[0].Now != "0 B/s" || p.Lines[1].Now != "4.0 KiB/s" || !strings.Contains(p.Title, "at most 100.0 KiB/s") || p.Top != "200.0 KiB/s" {
		t.Errorf("%+v", p)
	}
	if p := throughput([]sample{at(1, 0, 0), at(0, 3<<20, 0)}); p.Top != "5.0 MiB/s" {
		t.Errorf("%+v", p)
	}
	if got := p.Lines[0].Stroke; got != "M540.0 50.0L600.0 100.0" { // counters that begin again are another session's
		t.Errorf("received: %s", got)
	}
}

func TestNiceAbove(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.5: 1, 0.99: 2, 1: 2, 4.8: 10, 4.7: 5, 11: 20, 48: 100, 960: 2000} {
		if got := niceAbove(v, 1); got != want {
			t.Errorf("%g: %g, want %g", v, got, want)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	h := newHistory()
	s := localapi.Status{Connections: []localapi.Connection{{Name: "lab"}, {Name: "blue"}}}
	now := time.Now()
	for i := range 2 * keptSamples {
		h.add(s, now.Add(time.Duration(i)*time.Second))
	}
	if got := h.of("lab"); len(got) != keptSamples || !got[len(got)-1].at.Equal(now.Add((2*keptSamples-1)*time.Second)) {
		t.Errorf("%d samples", len(got))
	}
	s.Connections = s.Connections[:1]
	h.add(s, now)
	if len(h.all) != 1 {
		t.Errorf("sessions that are no more are kept: %d", len(h.all))
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	for ago, want := range map[time.Duration]string{-time.Hour: "0 s", 59 * time.Second: "59 s", 3*time.Minute + 10*time.Second: "3 min 10 s", 2*time.Hour + 5*time.Minute: "2 h 5 min", 76 * time.Hour: "3 d 4 h"} {
		if got := age(now, now.Add(-ago)); got != want {
			t.Errorf("%v: %s, want %s", ago, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "" {
		t.Errorf("never: %s", got)
	}
}
