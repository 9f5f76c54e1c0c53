package localapi

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Inspections answers for what the last connections that a rule took carried.
type Inspections struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Rule       string `json:"rule"`
	// Connections are newest last.
	Connections []Inspection `json:"connections"`
}

// NewInspections is what a rule's connections carried.
func NewInspections(rule string, all []Inspection) Inspections {
	return Inspections{APIVersion: APIVersion, Kind: "Inspections", Rule: rule, Connections: append([]Inspection{}, all...)}
}

// Inspection is a connection to the local program, as far as the daemon keeps it in
// memory.
type Inspection struct {
	Time time.Time `json:"time"` // when it began
	Pod  string    `json:"pod"`
	Over bool      `json:"over,omitempty"`
	// Replay is when that connection began whose request this one had once more.
	Replay *time.Time `json:"replay,omitempty"`
	// Forgotten counts the exchanges before those that follow.
	Forgotten int64      `json:"forgotten,omitempty"`
	Exchanges []Exchange `json:"exchanges"`
}

// Exchange is what came, and what was answered before more came: of HTTP/1 a request
// and its response, as they were on the wire.
type Exchange struct {
	Time time.Time `json:"time"`
	// In came from the pod, Out from the local program; InMore and OutMore count
	// the bytes after them that are not kept.
	In      []byte `json:"in,omitempty"`
	InMore  int64  `json:"inMore,omitempty"`
	Out     []byte `json:"out,omitempty"`
	OutMore int64  `json:"outMore,omitempty"`
}

// Inspect asks what the last connections of a rule carried that was made to be
// inspected.
func (c *Client) Inspect(ctx context.Context, rule string) (Inspections, error) {
	var i Inspections
	return i, c.do(ctx, http.MethodGet, "/v1/steer/"+url.PathEscape(rule)+"/inspected", nil, &i)
}

// ReplayRequest asks for a request of HTTP/1 to be sent to a rule's local program once
// more, as it came. Times are those of the Inspection and of its Exchange.
type ReplayRequest struct {
	Connection time.Time `json:"connection"`
	Exchange   time.Time `json:"exchange"`
}

// Replay sends a request that a rule took to its local program once more, and returns
// what that answered. Inspect has it, too, from then on.
func (c *Client) Replay(ctx context.Context, rule string, req ReplayRequest) (Inspection, error) {
	var i Inspection
	return i, c.do(ctx, http.MethodPost, "/v1/steer/"+url.PathEscape(rule)+"/replay", req, &i)
}
