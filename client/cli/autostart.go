package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
)

// Autostart has the daemon start with the user's login.
type Autostart interface {
	// Set returns what the user should know beside that it is done.
	Set(ctx context.Context, on bool) (string, error)
	On() (bool, error)
}

func newAutostart(env *caller.Env, autostart Autostart) *cobra.Command {
	return &cobra.Command{
		Use:   "autostart [on|off]",
		Short: "Have the daemon start with your login",
		Long: `Say whether the daemon starts with your login, or have it do so from now on. It
then connects by the profiles that ask for it, and again when such a session has
ended by itself. Without that connect starts a daemon, which ends with the last
session.

  podnet profile save staging --context blue -n shop --auto-connect
  podnet autostart on

By systemd it is a unit of your own, podnet.service, and on macOS an agent of
launchd. It keeps the PATH and the KUBECONFIG of now, for the programs by which
you log in to clusters; on once more takes those of then.`,
		ValidArgs: []string{"on", "off"},
		Args:      flags.OneAtMost("word, on or off"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				on, err := autostart.On()
				if err == nil {
					fmt.Fprintln(env.Out, map[bool]string{true: "on", false: "off"}[on])
				}
				return err
			}
			if args[0] != "on" && args[0] != "off" {
				return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("autostart %q: want on or off", args[0]), Hint: "podnet autostart on"}
			}
			say, err := autostart.Set(cmd.Context(), args[0] == "on")
			if err == nil && say != "" {
				fmt.Fprintln(env.Notes(), say)
			}
			return err
		},
	}
}
