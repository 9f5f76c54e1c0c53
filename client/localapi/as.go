package localapi

import (
	"context"
	"fmt"
	"strings"
)

// AsRequest asks that what this machine sends into the cluster leave from a pod,
// until the call's caller hangs up. What it answers is that of a SteerRequest that
// is held; the rule in it ends by StopSteering.
type AsRequest struct {
	// Kube is which cluster the caller means; it must be the session's.
	Kube Kube `json:"kube"`
	// Namespace of the target; empty means the session's own.
	Namespace string `json:"namespace,omitempty"`
	// Target is whose pod it is to be, as deploy/web: one that is ready, the oldest
	// of them, until it goes.
	Target string `json:"target"`
}

// Check finds what can be known to be wrong without a cluster.
func (r AsRequest) Check() error {
	if kind, name, ok := strings.Cut(r.Target, "/"); !ok || kind == "" || name == "" || strings.Contains(name, "/") {
		return usage(fmt.Sprintf("%q is no pod to send from: want KIND/NAME", r.Target), "--as deploy/web, --as pod/web-7c9f-x2 or --as svc/web")
	}
	return nil
}

// ModeEgress is the SteerRule.Mode of a rule that takes nothing: what its owner's
// machine sends leaves from the pod.
const ModeEgress = "egress"

// Identity is the pod from which what this machine sends into the cluster leaves.
type Identity struct {
	Target    string `json:"target"`
	Namespace string `json:"namespace"`
	// Pod is empty while there is none that is ready. Nothing gets through then,
	// and Text says why.
	Pod  string `json:"pod,omitempty"`
	Text string `json:"text,omitempty"`
	Hint string `json:"hint,omitempty"`
}

// As makes a pod the one from which this machine sends, calls event with each line,
// and returns when ctx is done or with what ended it; see Client.Steer.
func (c *Client) As(ctx context.Context, req AsRequest, event func(SteerEvent)) error {
	_, err := c.steer(ctx, "/v1/as", req, true, event)
	return err
}
