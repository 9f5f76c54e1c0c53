// Package cli is the command line of podnet: it puts the rooms of commands together, and has
// those that begin and end sessions. It speaks to the daemon by its local API, and to
// clusters by what main gives it; it knows neither Kubernetes nor the host's network.
package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/complete"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/export"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/inbound"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/cli/report"
	"podnet.dev/client/cli/settings"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Env is what the commands work with.
type Env struct {
	caller.Env
	outbound.Host
	admin.Clusters
	// Name is what podnet was called as: kubectl-podnet makes it a plugin of kubectl.
	Name string
	// Cluster finds words that a shell completes; nil: nobody knows any.
	Cluster complete.Cluster
	// Browse opens a URL in the user's browser.
	Browse func(url string) error
	// RunDaemon is the daemon itself.
	RunDaemon func(ctx context.Context, o DaemonOptions) error
	// LogFile is the daemon's, should it not run and say so itself.
	LogFile string
	// Guard is the process that cleans up after a killed daemon.
	Guard func(stateDir string, in io.Reader) error
	// Cleanup takes back what a killed daemon left, if its guard was killed too.
	Cleanup func(ctx context.Context) error
	// Setup installs podnet-helper on this machine.
	Setup Setup
	// Autostart has the daemon start with the user's login.
	Autostart Autostart
}

// Run executes one command line and returns its exit status.
func Run(ctx context.Context, env Env, args []string) int {
	env.Args = args
	root := newRoot(&env)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	if flags.InCI(env.Environ) {
		env.Ask = nil
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exit.OK
	}
	var quiet exit.Status
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exit.Interrupted
	}
	status := exit.Of(err)
	caller.PrintFailure(&env.Env, cmd, httpjson.FromError(err), exit.LogOf(err), status)
	return status
}

const long = `podnet puts this machine on the pod network of a Kubernetes cluster.

  podnet connect -n shop      then: curl http://web.shop
  podnet steer deploy/web 8080:3000 --header 'x-user: alice'
  podnet expose 3000 --as my-api
  podnet exec -n shop --as deploy/web -- npm test
  podnet status
  podnet wait --for service/shop/web:80
  podnet disconnect
  podnet doctor               if any of it does not work

Every connection flag of kubectl works. Every flag can be given by the
environment, --path as PODNET_PATH, and by a file: podnet config --help.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 not connected, 4 credentials
or permission, 5 not in time, 6 cluster unreachable, 7 daemon or privilege,
8 address or route conflict, 9 DNS, 10 install failed, 130 interrupted; of exec
the command's own, or 125 to 127.`

// Tree is the tree of commands, to be written about and not to be run.
func Tree(env Env) *cobra.Command { return newRoot(&env) }

func newRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use: "podnet", Short: "This machine on the pod network of a Kubernetes cluster", Long: long,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if strings.HasPrefix(cmd.Name(), cobra.ShellCompRequestCmd) { // which hears of no error
				return nil
			}
			if err := env.Configure(cmd, args); err != nil {
				return err
			}
			if err := env.Preset(cmd.Flags()); err != nil {
				return err
			}
			return env.Check()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit.Usagef("unknown command %q", args[0])
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: cmd.CommandPath() + " --help"}
	})
	root.PersistentFlags().String("socket", "", "unix socket of the daemon (default: in the runtime folder of the user)")
	env.Flags(root.PersistentFlags())
	all := [][]*cobra.Command{
		{newConnect(&env.Env), newDisconnect(&env.Env, env.Cleanup), newPrimary(&env.Env), newNamespace(&env.Env), newWait(&env.Env)},
		{newDaemon(env.RunDaemon), newGuard(&env.Env, env.Guard), newCleanup(env.Cleanup), newSetup(&env.Env, env.Setup), newAutostart(&env.Env, env.Autostart), complete.Command()},
		admin.Commands(&env.Env, env.Clusters), outbound.Commands(&env.Env, env.Host), inbound.Commands(&env.Env), {export.Command(&env.Env)},
		report.Commands(&env.Env, env.LogFile, env.Browse), settings.Commands(&env.Env),
	}
	for _, room := range all {
		root.AddCommand(room...)
	}
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = flags.NoArguments
		}
		switch c.Name() {
		case "disconnect", "setup", "version", "completion", "logs", "daemon", "autostart", "guard", "cleanup", "exec-agent", "exec-keep": // a broken file is in nobody's way here
			c.Annotations = map[string]string{caller.NoConfig: c.Name()}
		}
	}
	complete.Register(root, &env.Env, env.Cluster)
	env.Spoken = spokenAs(env.Name, root)
	return root
}
