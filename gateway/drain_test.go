package gateway

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
)

// laptops probe once a second until they have left.
type laptops struct {
	staying time.Duration // after they were asked; negative: for ever
	asked   atomic.Int64
	begun   time.Time
}

func (l *laptops) Drain() { l.asked.Store(int64(time.Since(l.begun))) }

func (l *laptops) LastProbe(probe.ID) (time.Time, transport.Kind) {
	end := time.Now()
	if gone := l.begun.Add(time.Duration(l.asked.Load()) + l.staying); l.staying >= 0 && gone.Before(end) {
		end = gone
	}
	return end.Truncate(time.Second), transport.UDP
}

func TestDrainWaitsForWhoCanLeave(t *testing.T) {
	for _, c := range []struct {
		what      string
		peers     int
		elsewhere bool
		staying   time.Duration
		least     time.Duration
		most      time.Duration
	}{
		{"nobody is there", 0, true, 0, 0, 0},
		{"they leave at once", 3, true, 200 * time.Millisecond, time.Second, 3 * time.Second},
		{"they take a while", 3, true, 4 * time.Second, 6 * time.Second, 7 * time.Second},
		{"they do not hear", 3, true, -1, drainLimit, drainLimit},
		{"there is nowhere to go", 3, false, -1, drainAlone, drainAlone},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Hour)
			l := &laptops{staying: c.staying, begun: time.Now()}
			time.Sleep(300 * time.Millisecond)
			a := &admitter{log: slog.New(slog.DiscardHandler), world: testWorld(), paths: l}
			ids := make([]probe.ID, c.peers)
			a.ids.Store(&ids)
			a.elsewhere.Store(c.elsewhere)
			began := time.Now()
			a.drain(t.Context())
			if took := time.Since(began); took < c.least || took > c.most+drainPoll {
				t.Errorf("%s: took %v, want %v to %v", c.what, took, c.least, c.most)
			}
			if l.asked.Load() == 0 || !a.draining.Load() || len(a.world.PeersChanged) == 0 {
				t.Errorf("%s: they were not told", c.what)
			}
		})
	}
}

// A gateway that stops says so where it is listed, and lists itself nowhere new.
func TestDrainingIsTold(t *testing.T) {
	p, w := newPeer(), writer0
	settled(t, p, w.entryPatch(p, true))
	if w.elsewhere(p) {
		t.Error("there is no other gateway")
	}
	w.entry.Draining = true
	settled(t, p, w.entryPatch(p, true))
	if !p.Status.Gateways[0].Draining || w.entryPatch(p, true) != nil {
		t.Errorf("gateways %+v", p.Status.Gateways)
	}
	if w.entryPatch(newPeer(), true) != nil {
		t.Error("a newcomer is sent to a gateway that stops")
	}
	other := writer0
	other.entry.Pod = "podnet-gateway-1"
	if other.elsewhere(p) {
		t.Error("a gateway that stops counts as somewhere to go")
	}
	back := writer0.entryPatch(p, true) // under the same name
	p.Status.Gateways = nil             // what is not applied again is gone
	settled(t, p, back)
	if p.Status.Gateways[0].Draining || !other.elsewhere(p) {
		t.Errorf("gateways %+v", p.Status.Gateways)
	}
}
