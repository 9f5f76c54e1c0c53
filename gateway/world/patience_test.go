package world

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestReadsWaitForTheAPIServer is an outage of forty seconds.
func TestReadsWaitForTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 40 * time.Second
		began := time.Now()
		server := &patient{pause: redialEvery, next: roundTrips(func(*http.Request) (*http.Response, error) {
			if time.Since(began) < outage {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: http.StatusOK}, nil
		})}
		ask := func(ctx context.Context, method string) error {
			r, err := http.NewRequestWithContext(ctx, method, "https://api.test/", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = server.RoundTrip(r)
			return err
		}

		if err := ask(t.Context(), http.MethodPatch); err == nil || time.Since(began) > 0 {
			t.Errorf("a write waited %v: %v", time.Since(began), err)
		}
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := ask(short, http.MethodGet); err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("a read with ten seconds' time waited %v: %v", time.Since(began), err)
		}
		if err := ask(t.Context(), http.MethodGet); err != nil {
			t.Error(err)
		}
		if late := time.Since(began) - outage; late > redialEvery {
			t.Errorf("the watch goes on %v after the server is back", late)
		}
	})
}
