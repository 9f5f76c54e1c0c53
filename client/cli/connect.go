package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/report"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newConnect(env *caller.Env) *cobra.Command {
	var req localapi.ConnectRequest
	var wait, lease time.Duration
	var output string
	allKube := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "connect [PROFILE] [-n NAMESPACE]...",
		Short: "Join the cluster of the kubeconfig",
		Long: `Join the cluster of the kubeconfig: its pods and Services can be reached by
address and by name, as far as you may. Returns when all of it was tried once.

  podnet connect                     the namespace of the kubeconfig's context
  podnet connect -n shop -n pay      two namespaces; short names are shop's
  podnet connect -A                  every namespace
  podnet connect --as deploy/web     and what is sent leaves from that pod
  podnet connect --also-route 10.20.0.0/16 --also-domain corp.internal
                                     and what the cluster reaches besides
  podnet connect --context blue      another cluster, beside the one that is there
  podnet connect staging             as the profile says; see podnet profile
  podnet connect --wait=60s -o json  in a script: until packets and names get through

Several clusters can be connected at once. Short names and the cluster's zone are
those of the primary, the first; each has its own by its alias, which is made of
its context's name: web.shop.svc.blue.podnet.internal. Asked for the same cluster
in the same way again, it says that it is connected.

` + flags.AsHelp,
		Args:        flags.OneAtMost("profile"),
		Annotations: map[string]string{caller.TakesProfile: "the argument"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p := env.Profile; p != nil {
				req.Name, req.As = cmp.Or(req.Name, p.Name), cmp.Or(req.As, p.Connect.As)
			}
			if err := flags.CheckConnect(&req, lease); err != nil {
				return err
			}
			if req.Name != "" {
				if err := localapi.CheckSession(req.Name); err != nil {
					return err
				}
			}
			if err := env.Preset(allKube); err != nil { // also those that are no flags here
				return err
			}
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			req.Kube = kube
			ctx := cmd.Context()
			if wait > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, wait)
				defer cancel()
			}
			c, socket := session.Client(cmd)
			name := ""
			steps := env.Progress(output)
			defer steps.End()
			status, err := session.Connect(ctx, env, c, socket, req, func(e localapi.Event) {
				name = e.Connection
				steps.Event(e)
			})
			still := &waiter{client: c.For(name), session: name, say: func(string) {}, conditions: []condition{forConnected}}
			if err == nil && wait > 0 { // a session that was there already may have lost its way since
				err = still.run(ctx)
			}
			if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil {
				err = &localapi.Error{Code: localapi.CodeTimeout, Message: strings.Join(append([]string{fmt.Sprintf("not connected after %v", wait)}, still.missing...), ": "),
					Hint: "--wait=5m waits longer; the last line above says where it was"}
			}
			if err != nil {
				steps.End()
				return session.WithLog(cmd.Context(), c, err)
			}
			if output == answer.JSONStream || output == "" && env.Quiet() { // the last event has the status
				return nil
			}
			return report.Status(env, output, status)
		},
	}
	f := cmd.Flags()
	flags.Connect(f, env.Environ, &req, &lease)
	f.DurationVar(&wait, "wait", 0, "how long to wait at most until connected, and until it works if it is there already (default without a value: 60s)")
	f.Lookup("wait").NoOptDefVal = "60s"
	answer.Flag(f, &output, append(slices.Clone(answer.ListForms), answer.JSONStream), ": how to print the status; json-stream: each step as a line of JSON, the status with the last")
	f.StringVar(&req.Name, "name", "", "name of the session, for its alias and for --session (default: the context's)")
	f.Lookup("name").Annotations = map[string][]string{flags.NoVariable: {}} // a rule of steer has one, too
	f.BoolVar(&req.Primary, "primary", false, "make it the primary session, once it is ready")
	f.BoolVar(&req.Reconnect, "reconnect", false, "connect again when the session has ended by itself, until it is disconnected")
	flags.As(f, &req)
	flags.Device(f, &req)
	flags.KubeBesideAs(f, allKube, env.Kube)
	return cmd
}
