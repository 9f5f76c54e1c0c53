// Package report has the commands that say how things are, and leave them so.
package report

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// Commands are podnet status, dns, map, doctor, logs, version and ui. logFile is the
// daemon's, should it not run and say so itself; browse opens a URL in the user's browser.
func Commands(env *caller.Env, logFile string, browse func(url string) error) []*cobra.Command {
	return []*cobra.Command{newStatus(env), newDNS(env), newMap(env), newDoctor(env), newLogs(env, logFile), newVersion(env), newUI(env, browse)}
}
