package steering

import (
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// TestInspect: what is kept is told of a rule that asked for it, and of no other.
func TestInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		inspected := request8080
		inspected.Inspect = true
		if _, err := steerIn(t.Context(), m, inspected); err != nil {
			t.Fatal(err)
		}
		if to := w.rules; len(to) != 1 || !to[0].Inspect || !m.List()[0].Inspect {
			t.Errorf("the relay is told %+v, the list says %+v", to, m.List())
		}
		all, err := m.Inspect("web-8080")
		if err != nil || len(all) != 1 || all[0].Pod != "web-1" || !all[0].Over || all[0].Forgotten != 2 || string(all[0].Exchanges[0].In) != "web-8080" || all[0].Exchanges[0].OutMore != 3 {
			t.Errorf("%+v: %v", all, err)
		}

		at := time.Now()
		again, err := m.Replay(t.Context(), "web-8080", localapi.ReplayRequest{Connection: at, Exchange: at})
		if err != nil || again.Replay == nil || !again.Replay.Equal(at) || len(again.Exchanges) != 1 {
			t.Errorf("%+v: %v", again, err)
		}
		for code, req := range map[string]localapi.ReplayRequest{localapi.CodeNotFound: {Exchange: at}, localapi.CodeUsage: {Connection: at}} {
			if _, err := m.Replay(t.Context(), "web-8080", req); httpjson.FromError(err).Code != code || httpjson.FromError(err).Hint == "" {
				t.Errorf("%+v: %v, want %s", req, err, code)
			}
		}

		// The same without is another rule, which keeps nothing.
		if _, err := steerIn(t.Context(), m, request8080); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Inspect("web-8080-2"); httpjson.FromError(err).Code != localapi.CodeUsage {
			t.Errorf("a rule without: %v", err)
		}
		if _, err := m.Replay(t.Context(), "web-8080-2", localapi.ReplayRequest{}); httpjson.FromError(err).Code != localapi.CodeUsage {
			t.Errorf("replay of a rule without: %v", err)
		}
		if _, err := m.Inspect("none"); httpjson.FromError(err).Code != localapi.CodeNotFound {
			t.Errorf("no rule: %v", err)
		}
	})
}
