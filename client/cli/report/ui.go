package report

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newUI(env *caller.Env, browse func(url string) error) *cobra.Command {
	var output string
	var stay bool
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Open the dashboard in a browser",
		Long: `Open the dashboard: pages that show sessions and their paths, Services, questions
for names, steering rules and what they take, live, with buttons for what one does
most. The daemon serves them on a port of this machine's loopback, for as long as
somebody has one open and ten minutes more.

Prints an address, which lets one browser in, once, within a minute; at a terminal
of a desktop the browser opens it by itself. What the page connects to is by the
kubeconfig that this command has.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			c, socket := session.Client(cmd)
			if err := session.Summon(cmd.Context(), env, c, socket); err != nil {
				return err
			}
			u, err := c.UI(cmd.Context(), localapi.UIRequest{Kube: kube})
			if err != nil {
				return err
			}
			if answer.ForPrograms(output) {
				return answer.Print(env.Out, output, u)
			}
			fmt.Fprintln(env.Out, u.URL)
			if stay || browse == nil || !env.Interactive(env.Out) {
				return nil
			}
			if err := browse(u.URL); err != nil {
				fmt.Fprintf(env.Err, "open it in a browser of this machine within %v, it is good once (%v)\n", time.Until(u.Until).Round(time.Second), err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&stay, "no-browser", false, "only print the address")
	answer.Flag(f, &output, answer.FactForms, ": how to print the address")
	env.Kube.AddTo(f)
	return cmd
}
