// Package settings has the commands that change what podnet does unless told otherwise.
package cli

import "github.com/spf13/cobra"

// settingsCommands are podnet config and podnet profile.
func settingsCommands(env *Base) []*cobra.Command {
	return []*cobra.Command{newConfig(env), newProfile(env)}
}
