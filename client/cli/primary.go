package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newPrimary(env *caller.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "primary [NAME]",
		Short: "Say or change the session whose short names resolve",
		Long: `Say which session's cluster the short names and those in the cluster's zone
are of, where several clusters are connected, or make it another one's. Every
session, the primary too, has its names by its alias, whichever is primary.

  podnet connect --context lab        web.shop is lab's
  podnet connect --context blue       web.shop.svc.blue.podnet.internal is blue's
  podnet primary blue                 and now web.shop is, too`,
		Args: flags.OneAtMost("session"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := session.Client(cmd)
			if len(args) == 0 {
				s, err := session.Status(cmd.Context(), c)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(s.Connections, func(c localapi.Connection) bool { return c.Primary })
				if i < 0 {
					_, err := session.Of(s, "")
					if err == nil {
						err = &localapi.Error{Code: localapi.CodeNotConnected, Message: "no session is primary", Hint: "podnet primary " + s.Connections[0].Name}
					}
					return err
				}
				fmt.Fprintln(env.Out, s.Connections[i].Name)
				return nil
			}
			if err := session.Set(cmd.Context(), c.SetPrimary, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(env.Notes(), "short names are those of %s\n", args[0])
			return nil
		},
	}
}
