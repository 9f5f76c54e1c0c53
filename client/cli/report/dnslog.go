package report

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// newDNSLog shows what was asked for.
func newDNSLog(env *caller.Env) *cobra.Command {
	var output string
	var follow bool
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show what this machine's programs have asked for",
		Long: `Show the last questions for names that the session's DNS proxy has answered, the
newest last: of this machine's programs, for names of the cluster and for all
others. The daemon remembers 500 of a session, in memory only, and tells nobody
but its owner.

  podnet dns log             what there was
  podnet dns log -f          and what comes, until it is interrupted`,
		Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _ := session.Client(cmd)
			ctx := cmd.Context()
			next := answer.Printer(env.Out, output)
			err := c.DNSQueries(ctx, follow, func(q localapi.DNSQuery) error {
				if answer.ForPrograms(output) {
					return next(q)
				}
				_, err := fmt.Fprintln(words.Shown(env.Out), describeQuery(q))
				return err
			})
			switch {
			case follow && ctx.Err() != nil:
				return nil // that is how it ends
			case err != nil:
				return session.NotConnected(err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	answer.Flag(f, &output, answer.FactForms, "; json: an object a line")
	return cmd
}

// describeQuery is a question and its answer in one line.
func describeQuery(q localapi.DNSQuery) string {
	answer := q.Rcode
	switch {
	case len(q.Answers) > 0:
		var data []string
		for _, r := range q.Answers {
			data = append(data, r.Data)
		}
		answer = strings.Join(data, ", ")
	case q.Rcode == "NOERROR":
		answer = "no such record"
	}
	from := "podnet itself"
	if n := len(q.Asked); n > 0 {
		from = sides[q.Asked[n-1].Of]
		if q.Asked[n-1].Cached {
			from += ", remembered"
		}
	}
	return fmt.Sprintf("%s  %s %s  %s  %s  %s", q.Time.Local().Format(words.TimeOfDay), q.Name, q.Type, answer, words.Milliseconds(q.TookMs), from)
}
