package cli

import (
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/session"
)

func newDaemon(env *Env) *cobra.Command {
	var o DaemonOptions
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the daemon in the foreground (connect starts one by itself)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, o.Socket = session.Client(cmd)
			return env.RunDaemon(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.OnDemand, "on-demand", false, "end when there is nothing left to do")
	return cmd
}

func newGuard(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "guard STATE_DIR", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Clean up when the other end of standard input is gone",
		RunE:  func(_ *cobra.Command, args []string) error { return env.Guard(args[0], env.In) },
	}
}

func newCleanup(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "cleanup", Hidden: true,
		Short: "Take back what a killed daemon has left on this machine",
		RunE:  func(cmd *cobra.Command, _ []string) error { return env.Cleanup(cmd.Context()) },
	}
}
