package report

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newStatus(env *caller.Env) *cobra.Command {
	var output string
	var watching, strict bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what is connected, and how",
		Long: `Say what is connected, and how. The exit status is 3 when nothing is, and with
--strict 9 when programs of this machine do not get the names of a cluster.

  podnet status --watch              go on saying it until interrupted: a terminal
                                     is redrawn, anything else gets a line an event
  podnet status --watch -o json      each event as a line of JSON`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watching && output == answer.Name {
				return exit.Usagef("-o name and --watch do not go together")
			}
			c, _ := session.Client(cmd)
			if watching {
				return watch(cmd.Context(), env, c, output)
			}
			s, err := session.Status(cmd.Context(), c)
			if err != nil {
				return err
			}
			off := s.State != localapi.Connected && s.State != localapi.Degraded
			if err := Status(env, output, s); err != nil && !off { // of what is not connected a template may find nothing
				return err
			}
			if off {
				return exit.Status(exit.NotConnected)
			}
			if strict && slices.ContainsFunc(s.Connections, func(c localapi.Connection) bool { return c.Since != nil && !c.DNS.Healthy }) {
				return exit.Status(exit.DNS)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit status 9 when names do not resolve")
	answer.Flag(cmd.Flags(), &output, answer.ListForms, "; the form for programs stays as it is")
	cmd.Flags().BoolVarP(&watching, "watch", "w", false, "go on until interrupted")
	return cmd
}

// Status prints a status in the form asked for.
func Status(env *caller.Env, output string, s localapi.Status) error {
	switch {
	case answer.ForPrograms(output):
		return answer.Print(env.Out, output, s)
	case output == answer.Name:
		return answer.Names(env.Out, s.Connections, func(c localapi.Connection) string { return c.Name })
	}
	w := env.Paint(env.Out)
	printStatus(w, s, time.Now())
	if output == answer.Wide {
		printWideStatus(w, s)
	}
	return nil
}
