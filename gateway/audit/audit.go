// Package audit tells who was let in, refused and thrown out, with which namespaces and
// which rules: in the log, and by Events. What is decided is others' affair.
package audit

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
)

// Audit compares what is decided now with what it was when it looked last; the first time
// there is nothing to compare it with, and nothing to tell but by the log, which begins
// anew with each gateway.
type Audit struct {
	log  *slog.Logger
	tell func(happening)

	begun bool
	peers map[string]peerFacts // by UID
	rules map[string]ruleFacts
}

// peerFacts are what is told of a Peer.
type peerFacts struct {
	object          *podnet.Peer
	user, device    string
	addr            netip.Addr
	open            string // the namespaces
	in              bool   // it is admitted
	reason, message string // of one that is not
}

// ruleFacts are what is told of a SteeringRule.
type ruleFacts struct {
	object          *podnet.SteeringRule
	peer            *podnet.Peer // whose it is; nil where that is gone
	accepted        bool
	reason, message string
}

// New makes an Audit that tells by log and events.
func New(log *slog.Logger, events *Events) *Audit { return &Audit{log: log, tell: events.tell} }

// Look compares.
func (a *Audit) Look(s world.Snapshot, plan enrol.Plan, steered steering.Plan) {
	peers, byName := a.peersNow(s, plan)
	rules := map[string]ruleFacts{}
	for i, r := range s.Rules {
		v := steered.Verdicts[i]
		rules[r.Rule.UID] = ruleFacts{r.Object, byName[r.Rule.Peer], v.Accepted, v.Reason, v.Message}
	}
	for _, uid := range slices.Sorted(maps.Keys(peers)) {
		a.comparePeer(a.peers[uid], peers[uid])
	}
	for _, uid := range slices.Sorted(maps.Keys(a.peers)) {
		if p, still := peers[uid]; !still && a.peers[uid].in {
			a.peerGone(a.peers[uid], "Deleted", "the Peer was deleted")
		} else if still && a.peers[uid].in && !p.in {
			a.peerGone(p, p.reason, p.message)
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(rules)) {
		a.compareRule(a.rules[uid], rules[uid])
	}
	for _, uid := range slices.Sorted(maps.Keys(a.rules)) {
		if r := a.rules[uid]; r.accepted && !rules[uid].accepted {
			why := "the SteeringRule was deleted"
			if now, still := rules[uid]; still {
				why = now.message
			}
			a.log.Info("rule ended", ruleAttrs(r, "why", why)...)
			a.event(r.happening("Steer", "SteeringEnded", false, fmt.Sprintf("%s no longer: %s", steers(r.object), why)))
		}
	}
	a.peers, a.rules, a.begun = peers, rules, true
}

// peersNow are the facts of all Peers that somebody has decided about, by UID, and the
// Peers by name.
func (a *Audit) peersNow(s world.Snapshot, plan enrol.Plan) (map[string]peerFacts, map[string]*podnet.Peer) {
	facts, byName := make(map[string]peerFacts, len(s.Peers)), make(map[string]*podnet.Peer, len(s.Peers))
	for i, p := range s.Peers {
		byName[p.Peer.Name] = p.Object
		v := plan.Peers[i]
		if old, known := a.peers[p.Peer.UID]; v.Pending && known {
			facts[p.Peer.UID] = old
		} else if !v.Pending && !v.Ready {
			facts[p.Peer.UID] = peerFacts{object: p.Object, user: p.Peer.User, device: p.Peer.Device, reason: v.Reason, message: v.Message}
		}
	}
	for _, p := range plan.Admitted {
		open := strings.Join(p.Namespaces, ", ")
		switch {
		case p.Cluster:
			open = "all"
		case open == "":
			open = "none"
		}
		facts[p.UID] = peerFacts{object: byName[p.Name], user: p.User, device: p.Device, addr: p.Address4, open: open, in: true}
	}
	return facts, byName
}

func (a *Audit) comparePeer(old, now peerFacts) {
	who := now.user + " on " + orNothing(now.device)
	switch {
	case now.in && !old.in:
		at := "-"
		if now.addr.IsValid() {
			at = now.addr.String()
		}
		a.event(now.happening("Enrol", "Enrolled", false, fmt.Sprintf("%s enrolled at %s; open namespaces: %s", who, at, now.open)))
	case now.in && now.open != old.open:
		a.event(now.happening("Enrol", "AccessChanged", false, fmt.Sprintf("%s; open namespaces: %s", who, now.open)))
	case !now.in && !old.in && now.reason != old.reason && now.reason != podnet.ReasonExpired:
		a.log.Info("peer refused", "peer", now.object.Name, "user", now.user, "device", now.device, "reason", now.reason, "text", now.message)
		a.event(now.happening("Enrol", "Refused", true, fmt.Sprintf("%s is refused: %s", who, now.message)))
	}
}

// peerGone tells of a Peer that was admitted and is not any more.
func (a *Audit) peerGone(p peerFacts, reason, why string) {
	a.log.Info("peer ended", "peer", p.object.Name, "user", p.user, "device", p.device, "reason", reason, "text", why)
	a.event(p.happening("Enrol", "Ended", reason != "Deleted", fmt.Sprintf("%s is out: %s", p.user+" on "+orNothing(p.device), why)))
}

func (a *Audit) compareRule(old, now ruleFacts) {
	switch {
	case now.accepted && !old.accepted:
		a.log.Info("rule accepted", ruleAttrs(now)...)
		a.event(now.happening("Steer", "Steering", false, steers(now.object)))
	case !now.accepted && !old.accepted && now.reason != old.reason && now.reason != podnet.ReasonExpired:
		a.log.Info("rule refused", ruleAttrs(now, "reason", now.reason, "text", now.message)...)
		a.event(now.happening("Steer", "SteeringRefused", true, fmt.Sprintf("%s not: %s", steers(now.object), now.message)))
	}
}

// event tells by an Event, but of what was there before this gateway.
func (a *Audit) event(h happening) {
	if a.begun {
		a.tell(h)
	}
}

func ruleAttrs(r ruleFacts, more ...any) []any {
	s := r.object.Spec
	return append([]any{"rule", s.Rule, "object", "steeringrule/" + r.object.Namespace + "/" + r.object.Name, "pod", targetOf(r.object), "user", s.User, "peer", s.Peer}, more...)
}

// steers says in a few words who steers what.
func steers(o *podnet.SteeringRule) string {
	verb := "steers"
	if o.Spec.Mode == podnet.SteeringEgress {
		verb = "sends as"
	}
	text := fmt.Sprintf("%s %s %s", o.Spec.User, verb, targetOf(o))
	if o.Spec.Port != 0 {
		text += fmt.Sprintf(" port %d", o.Spec.Port)
	}
	return text + " by rule " + o.Spec.Rule
}

// targetOf is what a rule is about.
func targetOf(o *podnet.SteeringRule) string {
	if o.Spec.Via != "" {
		return "service/" + o.Namespace + "/" + o.Spec.Service
	}
	return o.Namespace + "/" + o.Spec.Pod
}

func orNothing(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
