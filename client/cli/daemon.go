package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/session"
)

// DaemonOptions are the flags of daemon.
type DaemonOptions struct {
	Socket   string
	OnDemand bool
}

func newDaemon(run func(context.Context, DaemonOptions) error) *cobra.Command {
	var o DaemonOptions
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the daemon in the foreground (connect starts one by itself)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, o.Socket = session.Client(cmd)
			return run(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.OnDemand, "on-demand", false, "end when there is nothing left to do")
	return cmd
}

func newGuard(env *caller.Env, guard func(stateDir string, in io.Reader) error) *cobra.Command {
	return &cobra.Command{
		Use: "guard STATE_DIR", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Clean up when the other end of standard input is gone",
		RunE:  func(_ *cobra.Command, args []string) error { return guard(args[0], env.In) },
	}
}

func newCleanup(cleanup func(context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: "cleanup", Hidden: true,
		Short: "Take back what a killed daemon has left on this machine",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cleanup(cmd.Context()) },
	}
}
