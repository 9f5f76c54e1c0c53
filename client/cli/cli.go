// Package cli is the command line of podnet. It speaks to the daemon by its
// local API, and to clusters by an Installer that main gives it; it knows
// neither Kubernetes nor the host's network.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/overview"
)

// Env is what the commands work with.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Environ is the caller's environment.
	Environ []string
	// Name is what podnet was called as: kubectl-podnet makes it a plugin of kubectl.
	Name string
	// Kube are kubectl's connection flags.
	Kube KubeFlags
	// Cluster finds words that a shell completes; nil: nobody knows any.
	Cluster Cluster
	// Ask puts a question to the user that is answered by yes or no; nil: there is
	// nobody at a terminal.
	Ask func(ctx context.Context, question string) bool
	// Installer changes clusters.
	Installer Installer
	// Admin is what administrators ask of clusters.
	Admin Admin
	// Browse opens a URL in the user's browser.
	Browse func(url string) error
	// StartDaemon starts a daemon in the background and returns when it answers.
	StartDaemon func(ctx context.Context, socket string) error
	// RunDaemon is the daemon itself.
	RunDaemon func(ctx context.Context, o DaemonOptions) error
	// Proxy connects inside this process, and serves its ports until ctx is done.
	Proxy func(ctx context.Context, o ProxyOptions) error
	// Spawn runs this program once more, in the background.
	Spawn func(args []string) (*Spawned, error)
	// Rooms makes networks for commands; nil: this system has none.
	Rooms Rooms
	// Privileged says whether this process may change the machine's network itself.
	Privileged func() bool
	// Foreground says whether a terminal's signals go to this process and to what it
	// starts. nil: they do not.
	Foreground func() bool
	// Signals are those that a command is to be told of, until stop; nil: none but the
	// end of ctx.
	Signals func() (all <-chan os.Signal, stop func())
	// ContainerEnvironment reads a container's environment from the cluster.
	ContainerEnvironment func(ctx context.Context, r ContainerRequest) (ContainerEnvironment, error)
	// Guard is the process that cleans up after a killed daemon.
	Guard func(stateDir string, in io.Reader) error
	// Cleanup takes back what a killed daemon left, if its guard was killed too.
	Cleanup func(ctx context.Context) error
	// Setup installs podnet-helper on this machine.
	Setup Setup
	// DefaultImage and DefaultAgentImage are the images of this version.
	DefaultImage, DefaultAgentImage string

	// args is the command line.
	args []string
	// LogFile is the daemon's, should it not run and say so itself.
	LogFile string
	// Autostart has the daemon start with the user's login.
	Autostart Autostart

	// layers are what flags are that nobody gave, profile the one that was named.
	layers  []layer
	profile *localapi.Profile
	// told is how much the command line wants to hear.
	told told
	// spoken is a text as it is said under the name that podnet was called by.
	spoken func(string) string
}

// KubeFlags are kubectl's connection flags.
type KubeFlags interface {
	AddTo(*pflag.FlagSet)
	// Kube is what was set, to travel with the environment env.
	Kube(env []string) (localapi.Kube, error)
}

// Installer puts podnet into a cluster and takes it out again.
type Installer interface {
	// Render gives the manifests as YAML or JSON.
	Render(o InstallOptions, format string) ([]byte, error)
	Install(ctx context.Context, kube localapi.Kube, o InstallOptions, say func(string)) error
	// Uninstall takes out what is for the whole cluster, or what is for one namespace.
	Uninstall(ctx context.Context, kube localapi.Kube, namespace string, say func(string)) error
}

// Admin shows who uses podnet in a cluster, and throws people out.
type Admin interface {
	// Top asks all gateways of a namespace who is there: once, or again and again
	// where every is not 0.
	Top(ctx context.Context, kube localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error
	// Revoke ends the sessions of a user, or that of a Peer. It returns those that
	// it ended, also with an error.
	Revoke(ctx context.Context, kube localapi.Kube, namespace, who string) ([]Revoked, error)
}

// Revoked is a session that was ended.
type Revoked struct {
	Peer   string `json:"peer"`
	User   string `json:"user"`
	Device string `json:"device"`
}

// InstallOptions are the flags of install.
type InstallOptions struct {
	Namespace        string
	Namespaced       bool // the gateway serves Namespace alone
	Image            string
	AgentImage       string
	PullPolicy       string
	ImagePullSecrets []string
	Replicas         int32
	UDPService       string
	NodePort         int32
	Advertise        []string
	PodCIDRs         []string
	ServiceCIDRs     []string
	STUN             []string
	DNSDomain        string
	Memory           string
	Limits           []string
	UserMetrics      bool
	NoNetworkPolicy  bool
	MetricsFrom      []string
	LogLevel         string
	Users, Groups    []string
}

// DaemonOptions are the flags of daemon.
type DaemonOptions struct {
	Socket   string
	OnDemand bool
}

// Run executes one command line and returns its exit status.
func Run(ctx context.Context, env Env, args []string) int {
	env.args = args
	root := newRoot(&env)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	if inCI(env.Environ) {
		env.Ask = nil
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var quiet exitError
	if errors.As(err, &quiet) {
		return int(quiet)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	e := httpjson.FromError(err)
	status := exitStatus(e)
	var own *execStatus
	if errors.As(err, &own) {
		status = own.status
	}
	printFailure(&env, cmd, e, logOf(err), status)
	return status
}

// Exit statuses; they are documented and stay.
const (
	exitOK           = 0
	exitGeneric      = 1
	exitUsage        = 2
	exitNotConnected = 3
	exitCredentials  = 4
	exitTimeout      = 5
	exitUnreachable  = 6
	exitDaemon       = 7
	exitConflict     = 8 // also: somebody else's rule is in the way
	exitDNS          = 9 // also: status --strict, names do not resolve
	exitDeploy       = 10
	exitInterrupted  = 130
)

func exitStatus(e *localapi.Error) int {
	switch e.Code {
	case localapi.CodeUsage:
		return exitUsage
	case localapi.CodeNotConnected:
		return exitNotConnected
	case localapi.CodeCredentials, localapi.CodeForbidden, localapi.CodeEnded:
		return exitCredentials
	case localapi.CodeTimeout:
		return exitTimeout
	case localapi.CodeUnreachable:
		return exitUnreachable
	case localapi.CodeDaemon, localapi.CodePrivilege:
		return exitDaemon
	case localapi.CodeConflict:
		return exitConflict
	case localapi.CodeDNS:
		return exitDNS
	case localapi.CodeDeploy:
		return exitDeploy
	case localapi.CodeCanceled:
		return exitInterrupted
	}
	return exitGeneric
}

// exitError ends a command with a status and no further words.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usage makes an error of a wrong command line.
func usage(format string, args ...any) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: "podnet --help"}
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
			if err := env.configure(cmd, args); err != nil {
				return err
			}
			if err := env.preset(cmd.Flags()); err != nil {
				return err
			}
			return env.told.check()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q", args[0])
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: cmd.CommandPath() + " --help"}
	})
	root.PersistentFlags().String("socket", "", "unix socket of the daemon (default: in the runtime folder of the user)")
	env.told.flags(root.PersistentFlags())
	root.AddCommand(newInstall(env), newUninstall(env), newAdmin(env), newConnect(env), newExec(env), newProxy(env), newStatus(env), newWait(env), newDisconnect(env), newPrimary(env), newSteer(env), newExpose(env), newExport(env), newNamespace(env), newDNS(env), newMap(env), newUI(env), newDoctor(env), newLogs(env), newConfig(env), newProfile(env), newAutostart(env), newSetup(env), newVersion(env), newCompletion(), newDaemon(env), newGuard(env), newCleanup(env))
	if env.Rooms != nil {
		root.AddCommand(newExecAgent(env), newExecKeep(env))
	}
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = noArguments
		}
		switch c.Name() {
		case "disconnect", "setup", "version", "completion", "logs", "daemon", "autostart", "guard", "cleanup", "exec-agent", "exec-keep": // a broken file is in nobody's way here
			c.Annotations = map[string]string{noConfig: c.Name()}
		}
	}
	complete(root, env)
	env.spoken = spokenAs(env.Name, root)
	return root
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%s takes no arguments, not %q", cmd.CommandPath(), args[0]), Hint: cmd.CommandPath() + " --help"}
	}
	return nil
}

// client is the daemon's client for a command, and for the session that the
// command names.
func client(cmd *cobra.Command) (*localapi.Client, string) {
	socket, _ := cmd.Flags().GetString("socket")
	if socket == "" {
		socket = localapi.RuntimeDir() + string(os.PathSeparator) + localapi.SocketName
	}
	return localapi.NewClient(socket).For(sessionName(cmd)), socket
}
