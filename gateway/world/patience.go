package world

import (
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"podnet.dev/internal/wake"
)

const (
	// redialEvery is between two attempts of a read to connect to an API server
	// that is away.
	redialEvery = time.Second
	// dialTimeout bounds one attempt: while a machine is down SYNs vanish, and
	// TCP repeats them at longer and longer intervals.
	dialTimeout = 5 * time.Second
)

// patiently makes what is read by c, lists and watches, wait for an API server
// that is away instead of failing. A watch that fails is begun again by
// client-go after pauses that grow to half a minute and more; that long after
// an outage the gateway would hear of no renewal and no new laptop, while leases
// run again.
func patiently(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &patient{next: next, pause: redialEvery} })
	return c
}

// patient tries a GET again that could not be sent, until its context is done.
// An answer, whatever it says, is for the caller.
type patient struct {
	next  http.RoundTripper
	pause time.Duration
}

func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		answer, err := p.next.RoundTrip(r)
		if err == nil || r.Method != http.MethodGet || !wake.After(r.Context(), p.pause) {
			return answer, err
		}
	}
}

// WrappedRoundTripper lets client-go find what is below.
func (p *patient) WrappedRoundTripper() http.RoundTripper { return p.next }
