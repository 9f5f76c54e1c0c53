package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

func newExec(env *Env) *cobra.Command {
	var req localapi.ConnectRequest
	var lease time.Duration
	kube := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "exec [--as TARGET] [-n NAMESPACE]... -- COMMAND...",
		Short: "Run a command of this machine that reaches the cluster",
		Long: `Run a command of this machine, and be connected meanwhile. Where nothing is
connected it connects, as connect does with the same flags, and disconnects
afterwards. The exit status is the command's.

  podnet exec -n shop -- npm test
  podnet exec --as deploy/web -- curl http://pay

Where something is connected the command uses that, and of several clusters the
primary's, or that of --session or --context; with --as it sends from
there for as long as the command runs, and so does all else on this machine.

` + asHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, command, err := cutCommand(cmd, args)
			switch {
			case err != nil:
				return err
			case len(args) > 0:
				return usage("%q is one thing too many: the command stands behind --, as in -- npm test", args[0])
			case command == nil:
				return usage("which command? want -- COMMAND..., as in -- npm test")
			}
			if err := checkConnect(&req, lease, ""); err != nil {
				return err
			}
			if err := env.preset(kube); err != nil { // also those that are no flags here
				return err
			}
			if req.Kube, err = env.Kube.Kube(env.Environ); err != nil {
				return usage("%v", err)
			}
			c, socket := client(cmd)
			s, err := ask(cmd.Context(), c)
			if err != nil {
				return err
			}
			name, err := meant(s, sessionName(cmd), req.Kube)
			if err != nil {
				return err
			}
			x := &execution{env: env, client: c.For(name), socket: socket, req: req, command: command}
			used, err := inUse(s, name)
			switch {
			case err != nil:
				return err
			case !used:
				return x.connected(cmd.Context())
			case req.As != "":
				return x.sending(cmd.Context())
			}
			return runCommand(cmd.Context(), env, command, nil, "")
		},
	}
	f := cmd.Flags()
	connectFlags(f, env, &req, &lease)
	asFlag(f, &req)
	addKubeBesideAs(f, kube, env)
	sessionFlag(cmd)
	return cmd
}

// execution is one run of exec.
type execution struct {
	env     *Env
	client  *localapi.Client
	socket  string
	req     localapi.ConnectRequest
	command []string
}

// connected runs the command in a session of its own.
func (x *execution) connected(ctx context.Context) error {
	x.req.Hold = true
	name := ""
	return x.during(ctx, "nothing is connected any more", func(ctx context.Context, ready func()) error {
		show := progress(x.env.Err, false)
		_, err := connect(ctx, x.env, x.client, x.socket, x.req, func(e localapi.Event) {
			if show(e); e.Type == localapi.EventReady {
				name = e.Connection
				ready()
			}
		})
		return err
	}, func(ctx context.Context) error {
		r, err := x.client.For(name).LetGo(ctx)
		if err == nil && r.Exits {
			awaitExit(ctx, x.client, r.PID)
		}
		return err
	})
}

// sending runs the command while the session that there is sends from a pod.
func (x *execution) sending(ctx context.Context) error {
	req := localapi.AsRequest{Kube: x.req.Kube, Target: x.req.As}
	if len(x.req.Namespaces) > 0 {
		req.Namespace = x.req.Namespaces[0]
	}
	steps := &steered{env: x.env, start: time.Now()}
	rule := ""
	return x.during(ctx, "nothing leaves from "+req.Target+" any more", func(ctx context.Context, ready func()) error {
		return x.client.As(ctx, req, func(e localapi.SteerEvent) {
			if steps.progress(e); e.Type == localapi.SteerReady {
				rule = e.Rule.Name
				ready()
			}
		})
	}, func(ctx context.Context) error {
		_, err := x.client.StopSteering(ctx, rule)
		return err
	})
}

// during runs the command while something lasts that begin keeps until its ctx is
// done, and that is there once it calls ready. end ends it, and waits for that.
func (x *execution) during(ctx context.Context, lost string, begin func(ctx context.Context, ready func()) error, end func(context.Context) error) error {
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	beginning := context.AfterFunc(ctx, hangUp)
	ready, over := make(chan struct{}), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { over <- begin(calls, sync.OnceFunc(func() { close(ready) })) })
	defer wg.Wait()
	defer hangUp()
	select {
	case <-ready:
	case err := <-over:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	beginning() // the command hears of an interrupt itself, and must not lose its ground before
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := end(ctx); err != nil && notConnected(err).Code != localapi.CodeNotFound && notConnected(err).Code != localapi.CodeNotConnected {
			fmt.Fprintf(x.env.Err, "warning: what exec began may go on for a while: %v\n", err)
		}
	}()
	return runCommand(ctx, x.env, x.command, over, lost)
}
