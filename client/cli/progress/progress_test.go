package progress

import (
	"bytes"
	"testing"

	"podnet.dev/client/localapi"
)

// On a terminal the phase that is under way stands on the last line, until it is over.
func TestLiveProgress(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{w: &out, mode: Live}
	p.Event(localapi.Event{Type: localapi.EventPhase, Phase: localapi.PhaseAuth})
	p.Event(localapi.Event{Type: localapi.EventDone, Phase: localapi.PhaseAuth, Text: "alice", ElapsedMs: 120})
	p.Event(localapi.Event{Type: localapi.EventPhase, Phase: localapi.PhaseGateway, ElapsedMs: 120})
	p.Event(localapi.Event{Type: localapi.EventError})
	p.End()
	want := "\r  0.0s  auth       ...\x1b[K" + "\r\x1b[K  0.1s  auth       alice\n" + "\r  0.1s  gateway    ...\x1b[K" + "\r\x1b[K"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}
