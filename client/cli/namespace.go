package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newNamespace(env *caller.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "namespace [NAME]",
		Short: "Say or change the namespace whose names need no suffix",
		Long: `Say which namespace's names need no suffix, or make it another one of the
session's, at once and without connecting again. Nothing else changes: every
namespace of the session stays open, and flows go on.

  podnet connect -n shop -n pay      web is web.shop
  podnet namespace pay               and now web.pay`,
		Args: flags.OneAtMost("namespace"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := session.Client(cmd)
			if len(args) == 0 {
				s, err := session.Status(cmd.Context(), c)
				if err != nil {
					return err
				}
				connection, err := session.Of(s, session.NameOf(cmd))
				if err != nil {
					return err
				}
				fmt.Fprintln(env.Out, connection.Namespace)
				return nil
			}
			if err := localapi.CheckNamespace(args[0]); err != nil {
				return err
			}
			if err := session.Set(cmd.Context(), c.SetNamespace, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(env.Notes(), "short names are those of namespace %s\n", args[0])
			return nil
		},
	}
	session.Flag(cmd)
	return cmd
}
