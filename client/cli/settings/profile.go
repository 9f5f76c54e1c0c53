package settings

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
)

func newProfile(env *caller.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Keep ways to connect under a name",
		Long: `Keep ways to connect under a name. A session that a profile makes has its name.

  podnet profile save staging --context blue -n shop -n pay
  podnet connect staging
  podnet connect staging -n ops      and a flag says otherwise
  podnet profile save staging --context blue -n shop --auto-connect
                                     with the login; see podnet autostart`,
		Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newProfileList(env), newProfileSave(env), &cobra.Command{
		Use: "remove NAME", Short: "Forget a profile; sessions stay", Args: flags.AtLeast(1, "podnet profile remove staging"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return env.Store(cmd.Root()).RemoveProfile(args[0])
		},
	})
	return cmd
}

func newProfileList(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the profiles", Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := env.Store(cmd.Root()).Profiles()
			switch {
			case err != nil:
				return err
			case answer.ForPrograms(output):
				return answer.Print(env.Out, output, localapi.NewProfileList(all))
			case output == answer.Name:
				return answer.Names(env.Out, all, func(p localapi.Profile) string { return p.Name })
			case len(all) == 0:
				fmt.Fprintln(env.Notes(), "there are none: podnet profile save NAME")
				return nil
			}
			t := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tCONTEXT\tNAMESPACES\tAUTO")
			for _, p := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, answer.OrDash(p.Connect.Context), answer.OrDash(wordsNamespaces(p.Connect)), map[bool]string{true: "yes", false: "-"}[p.AutoConnect])
			}
			return t.Flush()
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.ListForms, "")
	return cmd
}

func wordsNamespaces(w localapi.Words) string {
	if w.AllNamespaces {
		return strings.Join(append(slices.Clone(w.Namespaces), "all"), ", ")
	}
	return strings.Join(w.Namespaces, ", ")
}

func newProfileSave(env *caller.Env) *cobra.Command {
	var p localapi.Profile
	var req localapi.ConnectRequest
	var lease time.Duration
	cmd := &cobra.Command{
		Use:   "save NAME [flags of connect]",
		Short: "Write a profile, in place of the one of that name",
		Long: `Write a profile, in place of the one of that name. It keeps the flags that are
given and nothing of what the configuration has for the others.`,
		Args:        flags.AtLeast(1, "podnet profile save staging --context blue -n shop"),
		Annotations: map[string]string{caller.NoConfig: "what it has is not kept"},
		RunE: func(cmd *cobra.Command, args []string) error {
			given := func(flag string) bool { return cmd.Flags().Changed(flag) }
			if err := flags.CheckConnect(&req, lease); err != nil {
				return err
			}
			p.Name = args[0]
			w := &p.Connect
			w.Namespaces, w.AllNamespaces, w.As, w.Primary, w.Reconnect, w.Beyond = req.Namespaces, req.AllNamespaces, req.As, req.Primary, req.Reconnect, req.Beyond
			for flag, keep := range map[string]func(){
				"path":              func() { w.Path = req.Path },
				"addresses":         func() { w.Addresses = req.Addresses },
				"device":            func() { w.Device = req.Device },
				"gateway-namespace": func() { w.GatewayNamespace = req.GatewayNamespace },
				"lease":             func() { w.LeaseSeconds = req.LeaseSeconds },
			} {
				if given(flag) {
					keep()
				}
			}
			kube, err := env.Kube.Kube(nil) // makes file names absolute
			if err != nil {
				return exit.Usagef("%v", err)
			}
			w.Context, w.Kubeconfig = strings.Join(kube.Flags["context"], ""), strings.Join(kube.Flags["kubeconfig"], "")
			if err := p.Check(); err != nil {
				return err
			}
			return env.Store(cmd.Root()).SaveProfile(p)
		},
	}
	f := cmd.Flags()
	flags.Connect(f, env.Environ, &req, &lease)
	flags.As(f, &req)
	flags.Device(f, &req)
	f.BoolVar(&req.Primary, "primary", false, "make it the primary session, once it is ready")
	f.BoolVar(&req.Reconnect, "reconnect", false, "connect again when the session has ended by itself, until it is disconnected")
	f.BoolVar(&p.AutoConnect, "auto-connect", false, "connect by it when the daemon starts with the login")
	kube := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	env.Kube.AddTo(kube)
	for _, name := range []string{"context", "kubeconfig"} {
		if flag := kube.Lookup(name); flag != nil {
			f.AddFlag(flag)
		}
	}
	return cmd
}
