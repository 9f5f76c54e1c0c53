// Package inbound has the commands by which what is sent in a cluster reaches ports of this
// machine: podnet steer takes requests from pods, podnet expose has a name of its own.
package cli

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// inboundCommands are podnet steer and podnet expose.
func inboundCommands(env *caller.Env) []*cobra.Command {
	return []*cobra.Command{newSteer(env), newExpose(env)}
}
