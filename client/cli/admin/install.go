package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
)

func newInstall(env *setting) *cobra.Command {
	var o InstallOptions
	var only string
	var dryRun bool
	var output string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put the gateway into a cluster, or bring it up to date",
		Long: `Put the gateway into the cluster of the kubeconfig, or bring it up to date, and
wait until it is ready. A first install that fails is taken back.

  podnet install                     for the whole cluster; by an administrator
  podnet install --namespace shop    for that namespace alone, by whoever has the
                                     role edit there: no kinds, no permissions of
                                     the gateway's; steering is not to be had so`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if only != "" {
				if cmd.Flags().Changed("gateway-namespace") {
					return exit.Usagef("--namespace and --gateway-namespace do not go together: the one is for one namespace, the other for the whole cluster")
				}
				o.Namespace, o.Namespaced = only, true
			}
			if dryRun {
				if output == "" {
					output = answer.YAML
				}
				text, err := env.Installer.Render(o, output)
				if err != nil {
					return &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet install --help"}
				}
				_, err = env.Out.Write(text)
				return err
			}
			if output != "" {
				return exit.Usagef("--output goes with --dry-run")
			}
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := env.Installer.Install(ctx, kube, o, say(env)); err != nil {
				return inTime(cmd.Context(), err, timeout)
			}
			if env.Quiet() {
				return nil
			}
			if o.Namespaced {
				fmt.Fprintf(env.Out, `podnet is installed for the namespace %[1]s. Whoever may port-forward there joins it:
  podnet connect -n %[1]s
`, o.Namespace)
				return nil
			}
			fmt.Fprintf(env.Out, `podnet is installed. Two more things let a developer in:
  kubectl -n %[1]s create rolebinding devs --role=podnet-connect --group=GROUP
  kubectl -n NAMESPACE create rolebinding devs-podnet --clusterrole=podnet-user --group=GROUP
Then they run: podnet connect -n NAMESPACE
`, o.Namespace)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "print what would be applied, change nothing")
	answer.Flag(f, &output, answer.DataForms, ": how to print with --dry-run")
	f.StringVarP(&only, "namespace", "n", "", "install for this namespace alone, with no more than the role edit there")
	f.Lookup("namespace").Annotations = map[string][]string{flags.NoVariable: {}} // connect's says which to open
	f.StringVar(&o.Namespace, "gateway-namespace", "podnet-system", "namespace for the whole cluster's gateway")
	f.StringVar(&o.Image, "image", env.DefaultImage, "image of the gateway")
	f.StringVar(&o.AgentImage, "agent-image", env.DefaultAgentImage, "image that users put into the pods they steer")
	f.StringVar(&o.PullPolicy, "image-pull-policy", "IfNotPresent", "IfNotPresent, Always or Never")
	f.StringSliceVar(&o.ImagePullSecrets, "image-pull-secret", nil, "Secret in the gateway's namespace for a private registry, repeatable")
	f.Int32Var(&o.Replicas, "replicas", 1, "how many gateways")
	f.StringVar(&o.UDPService, "udp-service", "", "publish WireGuard's UDP port by a NodePort or LoadBalancer Service")
	f.Int32Var(&o.NodePort, "node-port", 0, "UDP port on every node; implies --udp-service=NodePort")
	f.StringSliceVar(&o.Advertise, "advertise", nil, "further UDP endpoint, ip:port, that leads to the gateway, repeatable")
	f.StringSliceVar(&o.PodCIDRs, "pod-cidr", nil, "range of pods for laptops to route, in place of what nodes declare, repeatable")
	f.StringSliceVar(&o.ServiceCIDRs, "service-cidr", nil, "with --namespace, range of Services for laptops to route, in place of a guess, repeatable")
	f.StringSliceVar(&o.STUN, "stun", nil, "STUN server, host:port, by which both sides find a way for UDP through NATs, repeatable")
	f.StringVar(&o.DNSDomain, "dns-domain", "", "the cluster's zone (default: found out)")
	f.StringVar(&o.Memory, "memory", "512Mi", "memory of a gateway at most")
	f.StringVar(&o.RequestMemory, "request-memory", "", "memory that a node keeps for a gateway (default 192Mi, or --memory where that is less)")
	f.StringVar(&o.RequestCPU, "request-cpu", "100m", "CPU that a node keeps for a gateway")
	f.StringSliceVar(&o.Limits, "limit", nil, "NAME=VALUE: what a user or a gateway has at most, repeatable; docs/permissions.md lists them")
	f.BoolVar(&o.UserMetrics, "user-metrics", false, "put users' names into the gateway's metrics, which every pod may read")
	f.StringSliceVar(&o.MetricsFrom, "metrics-from", nil, "namespace whose pods may scrape the metrics, repeatable (default: all)")
	f.BoolVar(&o.NoNetworkPolicy, "no-network-policy", false, "leave out the NetworkPolicy about who may call the gateway")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringSliceVar(&o.Users, "user-allowed", nil, "user who may connect, repeatable")
	f.StringSliceVar(&o.Groups, "group-allowed", nil, "group that may connect, repeatable")
	f.DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until the gateway is ready")
	env.Kube.AddTo(f)
	return cmd
}

func newUninstall(env *setting) *cobra.Command {
	var timeout time.Duration
	var only string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take podnet out of a cluster, with everything it has made",
		Long: `Take podnet out of the cluster of the kubeconfig: gateway, permissions, kinds and
namespace. Whoever is connected is cut off. Works on a half install, too. With
--namespace what was installed for that namespace alone goes, and nothing else.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := env.Installer.Uninstall(ctx, kube, only, say(env)); err != nil {
				return inTime(cmd.Context(), err, timeout)
			}
			if !env.Quiet() {
				fmt.Fprintln(env.Out, "podnet is gone")
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until everything is gone")
	cmd.Flags().StringVarP(&only, "namespace", "n", "", "what was installed for this namespace alone")
	cmd.Flags().Lookup("namespace").Annotations = map[string][]string{flags.NoVariable: {}}
	env.Kube.AddTo(cmd.Flags())
	return cmd
}

// say prints progress with the time since the start.
func say(env *setting) func(string) {
	start, steps := time.Now(), env.Progress("")
	return func(text string) { steps.Say(time.Since(start), text) }
}

// inTime names the time-out when that is what ended the command.
func inTime(ctx context.Context, err error, limit time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("not done after %v", limit), Hint: "--timeout waits longer; running it again goes on where it was"}
	}
	return err
}
