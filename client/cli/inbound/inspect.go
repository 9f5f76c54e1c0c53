package inbound

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// newSteerInspect shows what the daemon keeps of a rule's connections.
func newSteerInspect(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what the last connections that a rule took carried",
		Long: `Show what the last connections carried that a rule took, which was made with
--inspect: what came from the pod after >, what the program on this machine
answered after <. HTTP/1 is shown as text, everything else as bytes. The daemon
keeps them in memory only, for as long as the rule lives, and tells nobody but
its owner.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "want the name of one rule", Hint: "podnet steer list"}
			}
			c, _ := session.Client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			all, err := c.Inspect(ctx, args[0])
			if err != nil {
				return session.NotConnected(err)
			}
			if answer.ForPrograms(output) {
				return answer.Print(env.Out, output, all)
			}
			return printInspections(env.Out, all)
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.FactForms, "; for programs all that is kept, bytes in base64")
	return cmd
}

// printInspections is for people.
func printInspections(w io.Writer, all localapi.Inspections) error {
	var b bytes.Buffer
	if len(all.Connections) == 0 {
		fmt.Fprintln(&b, "no connection yet")
	}
	for n, c := range all.Connections {
		if n > 0 {
			fmt.Fprintln(&b)
		}
		state := "open"
		if c.Over {
			state = "over"
		}
		by := "connection by " + c.Pod
		if c.Replay != nil {
			by = "replay of " + c.Replay.Local().Format(words.TimeOfDay)
		}
		fmt.Fprintf(&b, "%s at %s, %s", by, c.Time.Local().Format(words.TimeOfDay), state)
		if c.Forgotten > 0 {
			fmt.Fprintf(&b, ", what was before %s is forgotten", c.Exchanges[0].Time.Local().Format(words.TimeOfDay))
		}
		fmt.Fprintln(&b)
		var in, out words.Wire
		for _, e := range c.Exchanges {
			for _, line := range in.Lines(e.In, e.InMore) {
				fmt.Fprintln(&b, "> "+line)
			}
			for _, line := range out.Lines(e.Out, e.OutMore) {
				fmt.Fprintln(&b, "< "+line)
			}
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
