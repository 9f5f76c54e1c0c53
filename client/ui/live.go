package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

const (
	// freshEvery is how old a page may be, breath how often at most it becomes another
	// because something happens.
	freshEvery = time.Second
	breath     = 200 * time.Millisecond
)

// live keeps a page up to date by server-sent events: each is the page's changing part
// as it is now, and comes only when that is another.
func (s *site) live(w http.ResponseWriter, r *http.Request, of *visit) {
	path := r.URL.Query().Get("path")
	query, err := url.ParseQuery(r.URL.Query().Get("query"))
	if _, known := pages[path]; !known || err != nil {
		http.NotFound(w, r)
		return
	}
	defer s.door.stay()()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ring := make(chan struct{}, 1)
	wg.Go(func() { s.ring(ctx, ring, path, query) })
	w.Header().Set("Content-Type", "text/event-stream")
	var was []byte
	for {
		bell := s.news.bell() // before the look: what happens meanwhile is not missed
		now, err := s.part(ctx, path, query, of)
		if err != nil {
			s.log.Warn("dashboard page not made", "page", path, "err", err)
			return
		}
		if !bytes.Equal(was, now) {
			text, _ := json.Marshal(string(now)) // on one line
			if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			was = now
		}
		if !wait(ctx, breath) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-bell:
		case <-ring:
		case <-time.After(freshEvery - breath):
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// part is the changing part of a page.
func (s *site) part(ctx context.Context, path string, query url.Values, of *visit) ([]byte, error) {
	var b bytes.Buffer
	err := templates[path].ExecuteTemplate(&b, "live", s.load(ctx, path, query, of))
	return b.Bytes(), err
}

// ring rings the bell when something comes that a page shows line by line. Where that
// cannot be heard the page is fresh enough without.
func (s *site) ring(ctx context.Context, bell chan<- struct{}, path string, query url.Values) {
	tell := func() error {
		select {
		case bell <- struct{}{}:
		default: // it has been
		}
		return nil
	}
	c := s.client.For(query.Get("session"))
	switch path {
	case "/names":
		_ = c.DNSQueries(ctx, true, func(localapi.DNSQuery) error { return tell() })
	case "/rule":
		_ = c.Requests(ctx, query.Get("rule"), true, func(localapi.SteeredRequest) error { return tell() })
	}
}
