package gateway

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/status"
	"podnet.dev/gateway/world"
)

// goneAfter is how long a gateway may have no pod before the leader takes it off
// the Peers. A pod that is made anew comes back sooner and does so itself.
const goneAfter = 30 * time.Second

// absences notes since when gateways that Peers are told of have had no pod. A
// gateway that stops takes itself off; one that was killed, or whose node is
// gone, does not, and every laptop that connects would try it first.
type absences map[gatewayPod]time.Time

type gatewayPod struct{ name, uid string }

// note takes note of who is missing now, and returns when the next of them will
// have been missing for long enough; zero for never. running is what
// world.Snapshot has of them.
func (m absences) note(now time.Time, peers []world.Peer, running map[string]string) (next time.Time) {
	seen := map[gatewayPod]bool{}
	for _, p := range peers {
		for _, g := range p.Object.Status.Gateways {
			pod := gatewayPod{g.Pod, g.PodUID}
			if running == nil || running[g.Pod] == g.PodUID || seen[pod] {
				continue
			}
			seen[pod] = true
			if _, known := m[pod]; !known {
				m[pod] = now
			}
			if at := m[pod].Add(goneAfter); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	for pod := range m {
		if !seen[pod] {
			delete(m, pod)
		}
	}
	return next
}

// gone reports whether an entry is of a gateway that will not come back.
func (m absences) gone(now time.Time, g podnet.Gateway) bool {
	since, missing := m[gatewayPod{g.Pod, g.PodUID}]
	return missing && now.Sub(since) >= goneAfter
}

// sweepPatch is the apply patch that takes another gateway's entry off a Peer,
// in that gateway's name: whoever applies nothing gives up what it owned. Should
// a new pod of the same name have written its own entry a moment ago, that one
// goes too, and the pod writes it again.
func sweepPatch(p *podnet.Peer) *unstructured.Unstructured {
	return status.Patch("Peer", p, map[string]any{})
}
