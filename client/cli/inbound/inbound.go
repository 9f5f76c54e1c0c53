// Package inbound has the commands by which what is sent in a cluster reaches ports of this
// machine: podnet steer takes requests from pods, podnet expose gives a port the name of a
// Service.
package inbound

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// Commands are podnet steer and podnet expose.
func Commands(env *caller.Env) []*cobra.Command {
	return []*cobra.Command{newSteer(env), newExpose(env)}
}
