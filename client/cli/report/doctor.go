package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newDoctor(env *caller.Env) *cobra.Command {
	var req localapi.DoctorRequest
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps podnet from working, and say what to do",
		Long: `Look at everything a session stands on: the way to the API server, podnet in
the cluster, every permission that connect uses, every path to the gateway, and
this machine's routes and resolver. Each finding that is not well has a fix.

It works unconnected and without privileges; it enrols for a few seconds then.
The exit status is 1 when there is a problem.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, ns := range append([]string{req.GatewayNamespace}, req.Namespaces...) {
				if err := localapi.CheckNamespace(ns); err != nil {
					return err
				}
			}
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			req.Kube = kube
			c, socket := session.Client(cmd)
			r := report{w: env.Paint(env.Out), silent: answer.ForPrograms(output), findings: []localapi.Finding{}}
			if err := examine(cmd.Context(), env, c, socket, req, r.add); err != nil {
				return err
			}
			if answer.ForPrograms(output) {
				all := localapi.NewFindings()
				all.Findings = r.findings
				err = answer.Print(env.Out, output, all)
			} else {
				r.end()
			}
			if err == nil && r.count(localapi.ResultProblem) > 0 {
				return exit.Status(exit.Generic)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&req.Namespaces, "namespace", "n", nil, "namespace that connect would open, repeatable (default: the context's)")
	f.StringVar(&req.GatewayNamespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	answer.Flag(f, &output, answer.FactForms, "")
	env.Kube.AddTo(f)
	return cmd
}

// examine asks the daemon, starting one where there is none.
func examine(ctx context.Context, env *caller.Env, c *localapi.Client, socket string, req localapi.DoctorRequest, say func(localapi.Finding)) error {
	if _, err := c.Version(ctx); errors.Is(err, localapi.ErrNoDaemon) {
		if err := env.StartDaemon(ctx, socket); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return c.Doctor(ctx, req, say)
}

// report prints findings in groups, as they come.
type report struct {
	w        io.Writer
	silent   bool
	group    string
	findings []localapi.Finding
}

func (r *report) add(f localapi.Finding) {
	r.findings = append(r.findings, f)
	if r.silent {
		return
	}
	group, name, _ := strings.Cut(f.Check, "/")
	if group != r.group {
		if r.group != "" {
			fmt.Fprintln(r.w)
		}
		fmt.Fprintln(r.w, group)
		r.group = group
	}
	fmt.Fprintf(r.w, "  %-7s  %-12s  %s\n", f.Result, name, f.Text)
	if f.Fix != "" {
		fmt.Fprintf(r.w, "  %-7s  %-12s  fix: %s\n", "", "", f.Fix)
	}
}

func (r *report) count(result localapi.Result) int {
	n := 0
	for _, f := range r.findings {
		if f.Result == result {
			n++
		}
	}
	return n
}

// end sums up.
func (r *report) end() {
	fmt.Fprintf(r.w, "\n%s, %s\n", counted(r.count(localapi.ResultProblem), "problem"), counted(r.count(localapi.ResultWarning), "warning"))
}

func counted(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
