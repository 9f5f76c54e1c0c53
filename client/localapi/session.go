package localapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// Alias is the label by which names tell a session from the others: its name in
// small letters, with dashes for what a label cannot have, at most 63 characters.
func Alias(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			r = '-'
		}
		if s := b.String(); r != '-' || s != "" && !strings.HasSuffix(s, "-") {
			b.WriteRune(r)
		}
	}
	alias := b.String()
	alias = strings.TrimRight(alias[:min(len(alias), 63)], "-")
	if alias == "" {
		return "session"
	}
	return alias
}

// Of is the state of one session.
func (s Status) Of(c Connection) State {
	switch {
	case len(s.Connections) == 1:
		return s.State
	case c.Since == nil:
		return Connecting
	case slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.Connection == c.Name && w.Severity == "high" }):
		return Degraded
	}
	return Connected
}

// PrimaryRequest asks for another primary session.
type PrimaryRequest struct {
	Name string `json:"name"`
}

// SetPrimary makes a session the one whose short names resolve. It returns when
// this machine resolves by it.
func (c *Client) SetPrimary(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/v1/primary", PrimaryRequest{name}, &struct{}{})
}

// For is a client of the same daemon whose calls are about the session of a
// name; "" is the primary.
func (c *Client) For(session string) *Client {
	return &Client{c.socket, session, c.http}
}
