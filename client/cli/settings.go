// Package settings has the commands that change what podnet does unless told otherwise.
package cli

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// settingsCommands are podnet config and podnet profile.
func settingsCommands(env *caller.Env) []*cobra.Command {
	return []*cobra.Command{newConfig(env), newProfile(env)}
}
