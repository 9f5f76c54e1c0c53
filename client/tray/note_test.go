package tray

import (
	"fmt"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
	"podnet.dev/client/tray/fakedaemon"
)

// TestNotes tells a day: what happens to a session, and what a user hears of it.
func TestNotes(t *testing.T) {
	staging := fakedaemon.Ready("staging", "shop")
	waiting := staging
	waiting.Since = nil
	warned := connected(localapi.Degraded, staging)
	warned.Warnings = []localapi.Warning{{Connection: "staging", Severity: "high", Text: "the gateway does not answer", Hint: "podnet doctor"}}
	lost := localapi.NewStatus()
	lost.LastError = &localapi.Error{Message: "the permission is gone", Hint: "ask for it"}
	runs := func(s localapi.Status) State { return State{Known: true, DaemonVersion: "dev", Status: s} }
	parted := runs(localapi.NewStatus())
	parted.Parted = map[string]bool{"staging": true}
	parted.DaemonVersion = ""
	failed := runs(localapi.NewStatus())
	failed.Failed = &localapi.Error{Message: "no way to the API server"}
	both := connected(localapi.Connected, staging, fakedaemon.Ready("blue", ""))

	var got []string
	at := State{}
	for _, next := range []State{
		runs(connected(localapi.Connected, staging)), // that is how it is at the start
		parted,
		runs(connected(localapi.Connecting, waiting)),
		runs(connected(localapi.Connected, staging)),
		runs(warned),
		runs(warned),
		runs(connected(localapi.Connected, staging)),
		runs(both),
		runs(connected(localapi.Connected, staging)), // by somebody else, just now
		runs(lost),
		runs(lost),
		failed,
		failed,
		runs(connected(localapi.Connected, staging)),
		{Known: true, Status: localapi.NewStatus()}, // kill -9 of the daemon
	} {
		for _, n := range notes(at, next) {
			got = append(got, strings.ReplaceAll(fmt.Sprintf("%s | %s | %v", n.Title, n.Text, n.Urgent), "\n", " / "))
		}
		at = next
	}
	want := []string{
		"Disconnected from staging |  | false",
		"Connected to staging / shop | Path: udp to 203.0.113.7:31820, 12 ms | false",
		"staging is degraded | the gateway does not answer / podnet doctor | true",
		"staging works again | Path: udp to 203.0.113.7:31820, 12 ms | false",
		"Connected to blue | Path: udp to 203.0.113.7:31820, 12 ms | false",
		"Disconnected from blue |  | false",
		"The session staging has ended | the permission is gone / ask for it | true",
		"Could not connect | no way to the API server | true",
		"Connected to staging / shop | Path: udp to 203.0.113.7:31820, 12 ms | false",
		"The session staging has ended | the podnet daemon is not running any more | true",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("heard:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
