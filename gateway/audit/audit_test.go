package audit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
)

// A day in the log: ada enrols, gets a namespace, steers, loses both; eve is refused.
func TestAudit(t *testing.T) {
	var log bytes.Buffer
	var told []string
	a := &Audit{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey || at.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return at
	}})), tell: func(h happening) {
		told = append(told, fmt.Sprintf("%s %v %s: %s", h.reason, h.warning, h.regarding.Name, h.note))
	}}
	object := func(name, user string) world.Peer {
		o := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: name, UID: types.UID(name)}, Spec: podnet.PeerSpec{User: user, Device: name + "-book"}}
		return world.Peer{Object: o, Peer: world.PeerOf(o)}
	}
	ada, eve := object("u1", "ada"), object("u2", "eve")
	in := func(namespaces ...string) enrol.Admitted {
		return enrol.Admitted{UID: "u1", Name: "u1", User: "ada", Device: "u1-book", Address4: netip.MustParseAddr("198.18.0.7"), Namespaces: namespaces}
	}
	ready, no := enrol.Verdict{Ready: true, Reason: podnet.ReasonAdmitted}, enrol.Verdict{Reason: podnet.ReasonLimitReached, Message: "Too many."}
	rule := &podnet.SteeringRule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "r1", UID: "r1"}, Spec: podnet.SteeringRuleSpec{User: "ada", Peer: "u1", Rule: "web", Pod: "web-0", Port: 8080}}
	rules := []world.Rule{{Object: rule, Rule: steering.Object{UID: "r1", Namespace: "shop", Name: "r1", Peer: "u1", User: "ada", Rule: "web"}}}
	accepted := steering.Plan{Verdicts: []steering.Verdict{{Accepted: true, Reason: podnet.ReasonAccepted}}}
	clash := steering.Plan{Verdicts: []steering.Verdict{{Reason: podnet.ReasonClash, Message: "bob was first."}}}

	for _, step := range []struct {
		s       world.Snapshot
		plan    enrol.Plan
		steered steering.Plan
		log     string
		events  []string
	}{
		{world.Snapshot{}, enrol.Plan{}, steering.Plan{}, "", nil},
		{world.Snapshot{Peers: []world.Peer{ada}}, enrol.Plan{Peers: []enrol.Verdict{ready}, Admitted: []enrol.Admitted{in()}}, steering.Plan{}, "",
			[]string{"Enrolled false u1: ada on u1-book enrolled at 198.18.0.7; open namespaces: none"}},
		{world.Snapshot{Peers: []world.Peer{ada}}, enrol.Plan{Peers: []enrol.Verdict{ready}, Admitted: []enrol.Admitted{in("pay", "shop")}}, steering.Plan{}, "",
			[]string{"AccessChanged false u1: ada on u1-book; open namespaces: pay, shop"}},
		{world.Snapshot{Peers: []world.Peer{ada, eve}, Rules: rules}, enrol.Plan{Peers: []enrol.Verdict{ready, no}, Admitted: []enrol.Admitted{in("pay", "shop")}}, clash,
			`msg="peer refused" peer=u2 user=eve device=u2-book reason=LimitReached text="Too many."` + "\n" +
				`msg="rule refused" rule=web object=steeringrule/shop/r1 pod=shop/web-0 user=ada peer=u1 reason=Clash text="bob was first."` + "\n",
			[]string{"Refused true u2: eve on u2-book is refused: Too many.", "SteeringRefused true u1: ada steers shop/web-0 port 8080 by rule web not: bob was first."}},
		{world.Snapshot{Peers: []world.Peer{ada, eve}, Rules: rules}, enrol.Plan{Peers: []enrol.Verdict{ready, no}, Admitted: []enrol.Admitted{in("pay", "shop")}}, accepted,
			`msg="rule accepted" rule=web object=steeringrule/shop/r1 pod=shop/web-0 user=ada peer=u1` + "\n",
			[]string{"Steering false u1: ada steers shop/web-0 port 8080 by rule web"}},
		{world.Snapshot{Peers: []world.Peer{ada, eve}, Rules: rules}, enrol.Plan{Peers: []enrol.Verdict{{Pending: true}, no}, Admitted: []enrol.Admitted{in("pay", "shop")}}, accepted, "", nil},
		{world.Snapshot{Peers: []world.Peer{ada}}, enrol.Plan{Peers: []enrol.Verdict{{Reason: podnet.ReasonExpired, Message: "Over."}}}, steering.Plan{},
			`msg="peer ended" peer=u1 user=ada device=u1-book reason=Expired text=Over.` + "\n" +
				`msg="rule ended" rule=web object=steeringrule/shop/r1 pod=shop/web-0 user=ada peer=u1 why="the SteeringRule was deleted"` + "\n",
			[]string{"Ended true u1: ada on u1-book is out: Over.", "SteeringEnded false u1: ada steers shop/web-0 port 8080 by rule web no longer: the SteeringRule was deleted"}},
		{world.Snapshot{Peers: []world.Peer{ada}}, enrol.Plan{Peers: []enrol.Verdict{ready}, Admitted: []enrol.Admitted{in()}}, steering.Plan{}, "",
			[]string{"Enrolled false u1: ada on u1-book enrolled at 198.18.0.7; open namespaces: none"}},
		{world.Snapshot{}, enrol.Plan{}, steering.Plan{}, `msg="peer ended" peer=u1 user=ada device=u1-book reason=Deleted text="the Peer was deleted"` + "\n",
			[]string{"Ended false u1: ada on u1-book is out: the Peer was deleted"}},
	} {
		log.Reset()
		told = nil
		a.Look(step.s, step.plan, step.steered)
		if got := log.String(); got != step.log {
			t.Errorf("log:\n%swant:\n%s", got, step.log)
		}
		if !slices.Equal(told, step.events) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(told, "\n"), strings.Join(step.events, "\n"))
		}
	}
}

// What a gateway finds when it starts is no news.
func TestAuditOfWhatWasThere(t *testing.T) {
	told := 0
	a := &Audit{log: slog.New(slog.DiscardHandler), tell: func(happening) { told++ }}
	o := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "u1", UID: "u1"}}
	a.Look(world.Snapshot{Peers: []world.Peer{{Object: o, Peer: world.PeerOf(o)}}}, enrol.Plan{Peers: []enrol.Verdict{{Ready: true}}, Admitted: []enrol.Admitted{{UID: "u1", Name: "u1"}}}, steering.Plan{})
	if told != 0 {
		t.Errorf("%d events", told)
	}
}

// Many happenings are few Events, and the log says that some were left out.
func TestEventsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		leads, written := false, 0
		e := newEvents(slog.New(slog.NewTextHandler(&log, nil)), func() bool { return leads }, func(context.Context, happening) error { written++; return nil })
		h := happening{reason: "Enrolled"}
		h.regarding.Name = "u1"
		e.tell(h) // another gateway does
		leads = true
		for range 1000 {
			e.tell(h)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if want := eventsAtOnce + 10*eventsPerSecond; written != want {
			t.Errorf("%d Events in 10 s, want %d", written, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := fmt.Sprintf("count=%d", 1000-eventsWaiting); !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log.String())
		}
	})
}
