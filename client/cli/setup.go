package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// SetupOptions are the flags of setup.
type SetupOptions struct {
	// Operators are users who may connect; empty: whoever called sudo.
	Operators []string
	// Program is the podnet-helper to install; empty: the one beside this program.
	Program string
	Prefix  string
	Remove  bool
}

func newSetup(env *caller.Env, setup Setup) *cobra.Command {
	var o SetupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Let users of this machine connect without being root",
		Long: `Install podnet-helper, the half of podnet that may change this machine's network,
as a service of systemd, and let users connect by it. Needed once.

  sudo podnet setup                  for yourself
  sudo podnet setup --operator bob   for bob, too
  sudo podnet setup --remove         takes all of it off again`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return &localapi.Error{Code: localapi.CodePrivilege, Message: "setup installs a service of this machine, which takes root", Hint: "sudo podnet setup"}
			}
			if o.Remove && len(o.Operators) > 0 {
				return exit.Usagef("--remove and --operator do not go together: edit /etc/podnet/helper.yaml")
			}
			if err := setup(cmd.Context(), o, func(text string) { fmt.Fprintln(env.Notes(), text) }); err != nil {
				return err
			}
			if o.Remove {
				fmt.Fprintln(env.Out, "podnet-helper is gone")
			} else {
				fmt.Fprintln(env.Out, "podnet-helper is installed: podnet connect needs no root any more")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Operators, "operator", nil, "user who may connect, repeatable (default: whoever called sudo)")
	f.StringVar(&o.Program, "helper", "", "podnet-helper to install (default: the one beside podnet)")
	f.StringVar(&o.Prefix, "prefix", "/usr/local", "where the program goes, below libexec")
	f.BoolVar(&o.Remove, "remove", false, "take all of it off again")
	return cmd
}

// Setup installs podnet-helper, or removes it, and tells of each step.
type Setup func(ctx context.Context, o SetupOptions, say func(string)) error
