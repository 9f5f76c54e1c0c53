package report_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
)

const oldLog = "time=2026-11-22T10:00:00.000Z level=INFO msg=\"daemon started\"\n"
const newLog = "time=2026-11-22T11:59:00.000Z level=INFO msg=\"session ready\"\npanic: no\n\ngoroutine 1:\ntime=2026-11-22T12:00:00.000Z level=INFO msg=last\n"

func TestLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	m := fakemachine.New(t)
	m.LogFile = path
	m.Podnet("logs").Want(t, exit.Generic, "there is no log at "+path)
	for name, text := range map[string]string{path + ".1": oldLog, path: newLog} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"":                             oldLog + newLog,
		"--tail 2":                     strings.Join(strings.SplitAfter(newLog, "\n")[3:5], ""),
		"--tail 0":                     "",
		"--since 2026-11-22T11:00:00Z": newLog,
		"--since 2026-11-22T11:59:30Z": newLog[strings.Index(newLog, "time=2026-11-22T12"):],
		"--since 2026-11-23":           "",
	} {
		r := m.Podnet(append([]string{"logs"}, strings.Fields(args)...)...)
		if r.Code != exit.OK || r.Out != want {
			t.Errorf("logs %s: %d\n%s\nwant\n%s%s", args, r.Code, r.Out, want, r.Stderr)
		}
	}
	m.Podnet("logs", "--since", "yesterday").Want(t, exit.Usage, "neither a duration nor a time")
}
