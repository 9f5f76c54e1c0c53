package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// noArguments is for a command without any.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%s takes no arguments, not %q", cmd.CommandPath(), args[0]), Hint: cmd.CommandPath() + " --help"}
	}
	return nil
}

// oneAtMost lets one argument pass, or none.
func oneAtMost(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("one %s, not %d", what, len(args))
		}
		return nil
	}
}

// atLeast wants that many arguments, and one exactly if it is one.
func atLeast(n int, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n || n == 1 && len(args) > 1 {
			return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%d arguments are not what it takes", len(args)), Hint: example}
		}
		return nil
	}
}

// walk visits a command and all below it.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}
