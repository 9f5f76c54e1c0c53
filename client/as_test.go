package client

import (
	"log/slog"
	"testing"

	"podnet.dev/client/localapi"
	"podnet.dev/client/steering"
)

// TestMuteUntilThereIsAPod: a session that is to send from a pod sends nothing before,
// and one that is not does.
func TestMuteUntilThereIsAPod(t *testing.T) {
	for as, want := range map[string]bool{"": false, "deploy/web": true} {
		s := New(Config{Request: localapi.ConnectRequest{As: as}, Log: slog.New(slog.DiscardHandler)})
		if s.mute() != want {
			t.Errorf("as %q: mute %v without steering", as, s.mute())
		}
		s.sender.Store(steering.New(steering.Config{Log: s.Log}))
		if s.mute() != want {
			t.Errorf("as %q: mute %v without a pod", as, s.mute())
		}
	}
}
