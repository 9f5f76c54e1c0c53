package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

func newConnect(env *Env) *cobra.Command {
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

` + asHelp,
		Args:        oneAtMost("profile"),
		Annotations: map[string]string{takesProfile: "the argument"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p := env.profile; p != nil {
				req.Name, req.As = cmp.Or(req.Name, p.Name), cmp.Or(req.As, p.Connect.As)
			}
			if err := checkConnect(&req, lease); err != nil {
				return err
			}
			if req.Name != "" {
				if err := localapi.CheckSession(req.Name); err != nil {
					return err
				}
			}
			if err := env.preset(allKube); err != nil { // also those that are no flags here
				return err
			}
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return usage("%v", err)
			}
			req.Kube = kube
			ctx := cmd.Context()
			if wait > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, wait)
				defer cancel()
			}
			c, socket := client(cmd)
			name := ""
			steps := env.progress(output)
			defer steps.end()
			status, err := connect(ctx, env, c, socket, req, func(e localapi.Event) {
				name = e.Connection
				steps.event(e)
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
				steps.end()
				return withLog(cmd.Context(), c, err)
			}
			if output == jsonStream || output == "" && env.told.quiet { // the last event has the status
				return nil
			}
			return showStatus(env, output, status)
		},
	}
	f := cmd.Flags()
	connectFlags(f, env, &req, &lease)
	f.DurationVar(&wait, "wait", 0, "how long to wait at most until connected, and until it works if it is there already (default without a value: 60s)")
	f.Lookup("wait").NoOptDefVal = "60s"
	outputFlag(f, &output, append(slices.Clone(listForms), jsonStream), ": how to print the status; json-stream: each step as a line of JSON, the status with the last")
	f.StringVar(&req.Name, "name", "", "name of the session, for its alias and for --session (default: the context's)")
	f.Lookup("name").Annotations = map[string][]string{noVariable: {}} // a rule of steer has one, too
	f.BoolVar(&req.Primary, "primary", false, "make it the primary session, once it is ready")
	f.BoolVar(&req.Reconnect, "reconnect", false, "connect again when the session has ended by itself, until it is disconnected")
	asFlag(f, &req)
	deviceFlag(f, &req)
	addKubeBesideAs(f, allKube, env)
	return cmd
}

// connectFlags are those that say what is asked for.
func connectFlags(f *pflag.FlagSet, env *Env, req *localapi.ConnectRequest, lease *time.Duration) {
	f.StringSliceVarP(&req.Namespaces, "namespace", "n", nil, "namespace to open, repeatable; the first one's names need no suffix (default: the context's)")
	f.BoolVarP(&req.AllNamespaces, "all-namespaces", "A", false, "open every namespace")
	f.StringVar(&req.Path, "path", "auto", "how to reach the gateway: auto, udp or apiserver")
	f.StringVar(&req.Addresses, "addresses", "auto", "at which addresses to see the cluster: its own (direct), others (virtual), or others where something of this machine has its own (auto)")
	f.StringVar(&req.GatewayNamespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	f.StringSliceVar(&req.AlsoRoutes, "also-route", nil, "prefix beside the cluster to reach through it, repeatable")
	f.StringSliceVar(&req.AlsoDomains, "also-domain", nil, "domain whose names the cluster's DNS is asked for, repeatable")
	f.StringSliceVar(&req.NeverRoutes, "never-route", nil, "prefix to keep out of the tunnel, repeatable")
	leaseFlags(f, lease, defaultLease(env.Environ))
}

// deviceFlag is for sessions that have an interface of the host's.
func deviceFlag(f *pflag.FlagSet, req *localapi.ConnectRequest) {
	f.StringVar(&req.Device, "device", "auto", "whose WireGuard to use: podnet's own (userspace), the Linux kernel's (kernel), or podnet's own (auto)")
}

// connectDefaults is what connect asks for when only the environment speaks.
func connectDefaults(env *Env) (localapi.ConnectRequest, error) {
	var req localapi.ConnectRequest
	var lease time.Duration
	f := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	connectFlags(f, env, &req, &lease)
	if err := env.preset(f); err != nil {
		return req, err
	}
	return req, checkConnect(&req, lease)
}

// checkConnect finds what can be known to be wrong without a cluster.
func checkConnect(req *localapi.ConnectRequest, lease time.Duration) error {
	req.LeaseSeconds = int32(min(lease/time.Second, math.MaxInt32))
	return req.Check()
}

// connect asks the daemon, starting one where there is none.
func connect(ctx context.Context, env *Env, c *localapi.Client, socket string, req localapi.ConnectRequest, show func(localapi.Event)) (localapi.Status, error) {
	if err := summon(ctx, env, c, socket); err != nil {
		return localapi.Status{}, err
	}
	begun := false
	status, err := c.Connect(ctx, req, func(e localapi.Event) {
		begun = true
		show(e)
	})
	var daemonGone *localapi.Error
	if !begun && errors.As(err, &daemonGone) && daemonGone.Code == localapi.CodeDaemon || errors.Is(err, localapi.ErrNoDaemon) {
		// It was about to end for want of work. Once is chance, twice is not.
		if err := env.StartDaemon(ctx, socket); err != nil {
			return localapi.Status{}, err
		}
		status, err = c.Connect(ctx, req, show)
	}
	return status, err
}

// summon starts a daemon where there is none.
func summon(ctx context.Context, env *Env, c *localapi.Client, socket string) error {
	v, err := c.Version(ctx)
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		return env.StartDaemon(ctx, socket)
	case err != nil:
		return err
	case v.Version != version.Version:
		fmt.Fprintf(env.Err, "warning: the running daemon is podnet %s, this is %s: podnet disconnect ends it\n", v.Version, version.Version)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
