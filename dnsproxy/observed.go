package dnsproxy

import (
	"context"
	"time"

	"github.com/miekg/dns"
)

// Observed is h, and tells how long each answer took.
func Observed(h Handler, observe func(time.Duration)) Handler {
	return HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		began := time.Now()
		defer func() { observe(time.Since(began)) }()
		return h.ServeDNS(ctx, r)
	})
}
