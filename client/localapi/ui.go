package localapi

import (
	"context"
	"net/http"
	"time"
)

// UIRequest asks for the way to the dashboard.
type UIRequest struct {
	// Kube is what the page connects with.
	Kube Kube `json:"kube"`
}

// UI is the way to the dashboard.
type UI struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// URL is of this machine's loopback, and good for one visit before Until.
	URL   string    `json:"url"`
	Until time.Time `json:"until"`
}

// UI asks for the way to the dashboard. The daemon serves it from then on, until
// nobody has had it open for ten minutes.
func (c *Client) UI(ctx context.Context, req UIRequest) (UI, error) {
	var u UI
	return u, c.do(ctx, http.MethodPost, "/v1/ui", req, &u)
}
