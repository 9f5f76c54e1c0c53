package localapi

import (
	"context"
	"net/http"
)

// Probe is what came of trying a session once, from this machine to the cluster.
type Probe struct {
	// RTTMs is how long a DNS question took through the tunnel and back, in
	// milliseconds; left out when there was no answer.
	RTTMs float64 `json:"rttMs,omitempty"`
	// Tunnel is what keeps packets from the cluster, or a question to the gateway from
	// being answered. Names is what keeps programs of this machine from the cluster's
	// names. Nil: nothing.
	Tunnel *Error `json:"tunnel,omitempty"`
	Names  *Error `json:"names,omitempty"`
}

// Probe tries the session: the host's route, a question to the gateway's DNS through
// the tunnel, and one of the kind that this machine's programs ask. A session that is
// not ready is an error of CodeNotConnected.
func (c *Client) Probe(ctx context.Context) (Probe, error) {
	var p Probe
	return p, c.do(ctx, http.MethodPost, "/v1/probe", struct{}{}, &p)
}
