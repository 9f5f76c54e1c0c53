package outbound

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/progress"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// Exit statuses of exec, beside the command's own: those of a shell, and of env(1) and
// timeout(1) for what went wrong before.
const (
	Failed   = 125 // exec itself failed
	NotRun   = 126 // the command is there and cannot be run
	NotFound = 127
	bySignal = 128 // and the signal that has ended the command
)

// options are what podnet exec asks for.
type options struct {
	req       localapi.ConnectRequest
	mode      string
	isolate   bool
	publish   []string
	join      string
	leave     string
	envFrom   string
	container string
	output    string
}

func newExec(env *setting) *cobra.Command {
	var o options
	var lease time.Duration
	kube := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "exec [-n NAMESPACE]... [--as TARGET] [-p PORT]... -- COMMAND...",
		Short: "Run a command of this machine that reaches the cluster",
		Long: `Run a command of this machine as if it ran in a pod: with the cluster's network
and names, but with its own files and user. It needs no privilege. The command
finds itself in a network of its own, and the machine's stays as it is; the
internet is there as well, and what listens on this machine's loopback is at
` + HostName + `.

  podnet exec -n shop -- go test ./...
  podnet exec -n shop --as deploy/web -- curl http://pay
  podnet exec -n shop --env-from deploy/web -p 3000:8080 -- npm start
  podnet exec --join ci -n shop -- ./migrate     and the next step has the same
  podnet exec --join ci -- ./test                tunnel: podnet exec --leave ci

Where such a network is not to be had, in containers mostly, it takes the next
way of --mode auto, and says so:

  namespace   as above
  tun         the tunnel is this machine's, for as long as the command runs: where
              podnet may change the network, as root of a container
  proxy       the command finds a proxy in its environment. curl heeds HTTP_PROXY in
              small letters only and ALL_PROXY in both, Go HTTP_PROXY and HTTPS_PROXY,
              Java and psql none: podnet proxy --forward is for those
  system      never by itself, but where there is no other: a session of the daemon,
              the one that there is or one for as long as the command runs. With
              podnet-helper it needs no privilege either, but this machine is
              in the cluster then, with all its programs

The exit status is the command's, 128 and its number where a signal has ended it,
127 where there is no such command, 126 where it cannot be run, and 125 where exec
itself has failed.

` + flags.AsHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			own := *env.Env
			if _, file := env.Err.(*os.File); !file {
				own.Err = &shared{w: env.Err} // the command writes there, too
			}
			x := &execution{env: &setting{&own, env.Host}, start: time.Now(), options: o}
			if err := x.prepare(cmd, args, lease, kube); err != nil {
				return err
			}
			defer x.told.End()
			return withStatus(x.run(cmd))
		},
	}
	f := cmd.Flags()
	flags.Connect(f, env.Environ, &o.req, &lease)
	flags.As(f, &o.req)
	execFlags(f, &o)
	flags.KubeBesideAs(f, kube, env.Kube)
	session.Flag(cmd)
	return cmd
}

func execFlags(f *pflag.FlagSet, o *options) {
	f.StringVar(&o.mode, "mode", modeAuto, "how the command reaches the cluster: "+strings.Join(modes, ", "))
	f.BoolVar(&o.isolate, "isolate", false, "neither the internet nor this machine can be reached, only the cluster")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "[ADDRESS:]PORT:PORT[/udp]: a port of this machine that leads to the command's, repeatable; port 0: any")
	f.StringVar(&o.join, "join", "", "run in the sandbox of this name, that later commands can have as well; the first makes it")
	f.StringVar(&o.leave, "leave", "", "end the sandbox of this name, and what runs in it")
	f.StringVar(&o.envFrom, "env-from", "", "add the environment of a container, as deploy/web: its variables, ConfigMaps and Secrets, as far as you may read them")
	f.StringVar(&o.container, "container", "", "which container of --env-from (default: the first)")
	answer.Flag(f, &o.output, []string{answer.Table, answer.JSON}, ": how to tell the progress on standard error; json: as --progress json")
	for _, name := range []string{"mode", "join", "leave", "publish", "container", "output", "env-from", "isolate"} {
		f.Lookup(name).Annotations = map[string][]string{flags.NoVariable: {}} // words of one command line
	}
	f.Lookup("mode").Annotations = nil
}

// execution is one run of exec.
type execution struct {
	options
	env     *setting
	start   time.Time
	command Command
	session string
	ports   []proxy.Forward
	told    *progress.Progress
}

// prepare finds what can be known to be wrong without a cluster.
func (x *execution) prepare(cmd *cobra.Command, args []string, lease time.Duration, kube *pflag.FlagSet) error {
	args, command, err := child.Cut(cmd, args)
	switch {
	case err != nil:
		return err
	case len(args) > 0:
		return exit.Usagef("%q is one thing too many: the command stands behind --, as in -- npm test", args[0])
	case command == nil && x.leave == "":
		return exit.Usagef("which command? want -- COMMAND..., as in -- npm test")
	case command != nil && x.leave != "":
		return exit.Usagef("--leave takes no command")
	case !slices.Contains(modes, x.mode):
		return exit.Usagef("mode %q: want %s", x.mode, strings.Join(modes, ", "))
	case x.container != "" && x.envFrom == "":
		return exit.Usagef("--container says which of --env-from")
	}
	x.session = session.NameOf(cmd)
	if err := x.checkRoom(); err != nil {
		return err
	}
	if err := flags.CheckConnect(&x.req, lease); err != nil {
		return err
	}
	if x.envFrom != "" {
		if err := (localapi.AsRequest{Target: x.envFrom}).Check(); err != nil {
			return exit.Usagef("--env-from %q: want KIND/NAME, as deploy/web", x.envFrom)
		}
	}
	if err := x.env.Preset(kube); err != nil { // also those that are no flags here
		return err
	}
	if x.req.Kube, err = x.env.Kube.Kube(x.env.Environ); err != nil {
		return exit.Usagef("%v", err)
	}
	x.told = x.env.Progress("")
	if x.output == answer.JSON {
		x.told = progress.New(x.env.Err, progress.JSON)
	}
	if command == nil {
		return nil
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return exit.With(&localapi.Error{Code: localapi.CodeUsage, Message: "the command does not start: " + err.Error(), Hint: "-- COMMAND...; a line of shell is -- sh -c '...'"}, notRun(err))
	}
	dir, err := os.Getwd()
	if err != nil {
		return exit.With(err, Failed)
	}
	x.command = Command{Path: path, Args: command, Env: x.env.Environ, Dir: dir, Foreground: x.env.Foreground != nil && x.env.Foreground()}
	return nil
}

// newExecAgent and newExecKeep are processes of package sandbox.
func newExecAgent(env *setting) *cobra.Command {
	return &cobra.Command{Use: "exec-agent", Hidden: true, Short: "Be the process inside a sandbox", RunE: func(*cobra.Command, []string) error { return env.Rooms.Agent() }}
}

func newExecKeep(env *setting) *cobra.Command {
	return &cobra.Command{Use: "exec-keep", Hidden: true, Short: "Keep a sandbox for several commands", RunE: func(cmd *cobra.Command, _ []string) error { return env.Rooms.Keep(cmd.Context()) }}
}

// checkRoom finds what is wrong with the flags that are about a sandbox.
func (x *execution) checkRoom() error {
	for _, name := range []string{x.join, x.leave} {
		if name != "" && localapi.CheckSession(name) != nil {
			return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%q is no name for a sandbox", name), Hint: "small letters, digits and dashes, as in --join ci"}
		}
	}
	ownRoom := x.mode == modeAuto || x.mode == modeNamespace
	switch {
	case x.session != "" && x.mode != modeAuto && x.mode != modeSystem:
		return exit.Usagef("--session is one of the daemon's, which --mode %s does not use", x.mode)
	case x.session != "" && (x.isolate || len(x.publish) > 0 || x.join != ""):
		return exit.Usagef("--session is one of the daemon's, and of this machine's network: --isolate, --publish and --join are for a network of the command's own")
	case x.isolate && !ownRoom:
		return exit.Usagef("--isolate needs a network of the command's own: --mode namespace has one, %s has not", x.mode)
	case len(x.publish) > 0 && !ownRoom:
		return exit.Usagef("--publish is for a network of the command's own: with --mode %s its ports are this machine's as they are", x.mode)
	case x.join != "" && !ownRoom:
		return exit.Usagef("--join is for sandboxes, which --mode %s has not", x.mode)
	}
	for _, text := range x.publish {
		p, err := parsePublish(text)
		if err != nil {
			return exit.Usagef("%v", err)
		}
		x.ports = append(x.ports, p)
	}
	return nil
}

// parsePublish reads [ADDRESS:]PORT:PORT[/udp], as podman and docker do. Without an
// address it is this machine's loopback.
func parsePublish(text string) (proxy.Forward, error) {
	wrong := fmt.Errorf("%q is no port to publish: want [ADDRESS:]PORT:PORT[/udp], as 3000:8080", text)
	rest, suffix, _ := strings.Cut(text, "/")
	at := strings.LastIndexByte(rest, ':')
	if at < 0 || suffix != "" && suffix != "udp" && suffix != "tcp" {
		return proxy.Forward{}, wrong
	}
	forward := rest[:at] + "=127.0.0.1" + rest[at:]
	if suffix != "" {
		forward += "/" + suffix
	}
	f, err := proxy.ParseForward(forward)
	if err != nil {
		return proxy.Forward{}, wrong
	}
	return f, nil
}

// withStatus gives what ends exec itself a status that no command is likely to have.
func withStatus(err error) error {
	var wrong *localapi.Error
	switch {
	case err == nil, exit.Own(err), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &wrong) && wrong.Code == localapi.CodeUsage:
		return err
	}
	return exit.With(err, Failed)
}

// notRun is the status of a command that cannot be started.
func notRun(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return NotFound
	}
	return NotRun
}
