package cluster

import "net/http"

// impatient is a RoundTripper that comes back when the request's context is done. The
// one behind it may wait for an exec plugin first, which client-go does for as long as
// that runs: it may have opened a browser in which nobody logs in. What comes too late
// is dropped; the next call waits for the same plugin, or has what it has said.
type impatient struct{ http.RoundTripper }

func (i impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	type result struct {
		resp *http.Response
		err  error
	}
	got := make(chan result) // unbuffered: either it is taken, or nobody waits
	go func() {
		resp, err := i.RoundTripper.RoundTrip(r)
		select {
		case got <- result{resp, err}:
		case <-r.Context().Done():
			if err == nil {
				_ = resp.Body.Close()
			}
		}
	}()
	select {
	case g := <-got:
		return g.resp, g.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// WrappedRoundTripper is for client-go, which looks for what is inside.
func (i impatient) WrappedRoundTripper() http.RoundTripper { return i.RoundTripper }
