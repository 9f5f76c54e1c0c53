package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

func newStatus(env *Base) *cobra.Command {
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
			if watching && output == formName {
				return usage("-o name and --watch do not go together")
			}
			c, _ := client(cmd)
			if watching {
				return watch(cmd.Context(), env, c, output)
			}
			s, err := ask(cmd.Context(), c)
			if err != nil {
				return err
			}
			off := s.State != localapi.Connected && s.State != localapi.Degraded
			if err := showStatus(env, output, s); err != nil && !off { // of what is not connected a template may find nothing
				return err
			}
			if off {
				return exitError(exitNotConnected)
			}
			if strict && slices.ContainsFunc(s.Connections, func(c localapi.Connection) bool { return c.Since != nil && !c.DNS.Healthy }) {
				return exitError(exitDNS)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit status 9 when names do not resolve")
	outputFlag(cmd.Flags(), &output, listForms, "; the form for programs stays as it is")
	cmd.Flags().BoolVarP(&watching, "watch", "w", false, "go on until interrupted")
	return cmd
}

// showStatus prints a status in the form asked for.
func showStatus(env *Base, output string, s localapi.Status) error {
	switch {
	case forPrograms(output):
		return printAs(env.Out, output, s)
	case output == formName:
		return printNames(env.Out, s.Connections, func(c localapi.Connection) string { return c.Name })
	}
	w := env.paint(env.Out)
	printStatus(w, s, time.Now())
	if output == formWide {
		printWideStatus(w, s)
	}
	return nil
}
