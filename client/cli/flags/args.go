package flags

import (
	"fmt"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// NoArguments is for a command without any.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%s takes no arguments, not %q", cmd.CommandPath(), args[0]), Hint: cmd.CommandPath() + " --help"}
	}
	return nil
}

// OneAtMost lets one argument pass, or none.
func OneAtMost(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return exit.Usagef("one %s, not %d", what, len(args))
		}
		return nil
	}
}

// AtLeast wants that many arguments, and one exactly if it is one.
func AtLeast(n int, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n || n == 1 && len(args) > 1 {
			return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%d arguments are not what it takes", len(args)), Hint: example}
		}
		return nil
	}
}

// Walk visits a command and all below it.
func Walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		Walk(sub, visit)
	}
}
