// Package settings has the commands that change what podnet does unless told otherwise.
package settings

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// Commands are podnet config and podnet profile.
func Commands(env *caller.Env) []*cobra.Command {
	return []*cobra.Command{newConfig(env), newProfile(env)}
}
