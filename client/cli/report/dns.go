package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// queryTime is how long a question may take: two tries at each of several
// resolvers.
const queryTime = 15 * time.Second

func newDNS(env *caller.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "dns", Short: "Ask for names as this machine's programs do, and see what they asked for",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: flags.NoArguments,
	}
	session.Flag(cmd)
	cmd.AddCommand(newDNSQuery(env), newDNSLog(env))
	return cmd
}

func newDNSQuery(env *caller.Env) *cobra.Command {
	var output string
	var explain bool
	cmd := &cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "Ask for a name, and say with --explain who knew it",
		Long: `Ask the session's DNS proxy for a name, in full or short, as this machine's
resolver does. TYPE is A unless given: AAAA, SRV, PTR, TXT, CNAME and so on. An
address in place of a name is asked for by its PTR record.

  podnet dns query web.shop
  podnet dns query _http._tcp.web.shop SRV
  podnet dns query 10.96.0.20
  podnet dns query web --explain     what it was taken for, who was asked, how long it took

The exit status is 9 when there is no such record.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return exit.Usagef("podnet dns query takes a name and perhaps a type, not %d words", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := session.Client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), queryTime)
			defer cancel()
			a, err := c.QueryDNS(ctx, args[0], strings.Join(args[1:], ""))
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				return session.SilentDaemon()
			case err != nil:
				return session.NotConnected(err)
			}
			switch {
			case answer.ForPrograms(output):
				err = answer.Print(env.Out, output, a)
			case explain || output == answer.Wide:
				explainAnswer(words.Shown(env.Out), a)
			case len(a.Answers) == 0:
				return &localapi.Error{Code: localapi.CodeDNS, Message: fmt.Sprintf("%s %s: %s", a.Name, a.Type, outcome(a.Rcode)), Hint: "--explain says who was asked"}
			default:
				printRecords(words.Shown(env.Out), a.Answers)
			}
			if err == nil && len(a.Answers) == 0 {
				return exit.Status(exit.DNS)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&explain, "explain", false, "say what the name was taken for, who was asked, and how long it took")
	answer.Flag(f, &output, []string{answer.Table, answer.Wide, answer.JSON, answer.YAML, answer.Path, answer.Columns}, "; all but table with the explanation")
	return cmd
}

// printRecords is for people, one record a line.
func printRecords(w io.Writer, all []localapi.DNSRecord) {
	for _, r := range all {
		fmt.Fprintf(w, "%s %d %s %s\n", r.Name, r.TTL, r.Type, r.Data)
	}
}

// outcome says what an answer without records means.
func outcome(rcode string) string {
	switch rcode {
	case "NOERROR":
		return "the name exists and has no such record"
	case "NXDOMAIN":
		return "there is no such name (NXDOMAIN)"
	case "SERVFAIL":
		return "nobody could answer (SERVFAIL)"
	}
	return rcode
}

// classes are the words for what a name is.
var classes = map[string]string{
	"zone":      "a name in the cluster's zone",
	"short":     "a short name, with its namespace",
	"single":    "a short name",
	"alias":     "a cluster's name by its alias",
	"reverse":   "an address of the cluster",
	"localhost": "this machine",
	"nowhere":   "a cluster's name, but of no namespace of this session: nobody is asked",
	"other":     "none of the cluster's names",
}

// sides are the words for whom a question was put to.
var sides = map[string]string{"cluster": "the cluster", "base": "this machine's own resolver"}

func explainAnswer(w io.Writer, a localapi.DNSAnswer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", name, text) }
	row("question", a.Name+" "+a.Type)
	row("is", classes[a.Class])
	for _, q := range a.Asked {
		row("asked", asked(q))
	}
	if len(a.Answers) == 0 {
		row("answer", outcome(a.Rcode))
	}
	for _, r := range a.Answers {
		row("answer", fmt.Sprintf("%s %d %s %s", r.Name, r.TTL, r.Type, r.Data))
	}
	row("took", words.Milliseconds(a.TookMs))
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

// asked says whom we asked for what, and what they said.
func asked(q localapi.DNSQuestion) string {
	whom := sides[q.Of]
	if q.Server != "" {
		whom += " (" + q.Server + ")"
	}
	text := fmt.Sprintf("%s for %s: %s", whom, q.Name, q.Rcode)
	switch {
	case q.Error != "":
		text = fmt.Sprintf("%s for %s: %s", whom, q.Name, q.Error)
	case q.Cached:
		return text + ", remembered"
	}
	return text + ", " + words.Milliseconds(q.TookMs)
}
