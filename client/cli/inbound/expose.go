package inbound

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/progress"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newExpose(env *caller.Env) *cobra.Command {
	var req localapi.ExposeRequest
	var ports []uint
	var detach bool
	var output string
	kube := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "expose LOCAL[/udp] --as NAME [-- COMMAND...]",
		Short: "Give a port of this machine a Service's name in the cluster",
		Long: `Make a Service in the cluster whose traffic comes to a port of this machine.
Ends with Ctrl-C, or with the command behind --; with --detach it lives as long
as the session. Connects first where nothing is connected.

  podnet expose 3000 --as my-api             then, in a pod: curl http://my-api
  podnet expose 3000 --as my-api -n shop     from elsewhere: curl http://my-api.shop
  podnet expose app.test:3000 --as my-api --port 8080
  podnet expose 5353/udp --as dns
  podnet expose 3000 --as my-api -- npm start

LOCAL is a port, or host:port. The Service has the ports 80 and LOCAL's own,
unless --port names others; by UDP it has LOCAL's own.

--as is the Service's name here, not kubectl's impersonation. The variables of
that, PODNET_AS and others, count all the same.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, command, err := child.Cut(cmd, args)
			switch {
			case err != nil:
				return err
			case len(args) == 0:
				return exit.Usagef("nothing to expose was named: want LOCAL --as NAME, as in 3000 --as my-api")
			case len(args) > 1:
				return exit.Usagef("%q is one thing too many: want LOCAL --as NAME, as in 3000 --as my-api", args[1])
			case detach && command != nil:
				return exit.Usagef("--detach and a command do not go together: the exposure would live as long as which of them?")
			}
			if req.Namespace != "" {
				if err := localapi.CheckNamespace(req.Namespace); err != nil {
					return err
				}
			}
			if req.Ports, err = servicePorts(ports); err != nil {
				return err
			}
			if req.Local, req.Hold = args[0], !detach; req.Name == "" {
				return exit.Usagef("by which name? want LOCAL --as NAME, as in 3000 --as my-api")
			}
			if err := req.Check(); err != nil {
				return err
			}
			if err := env.Preset(kube); err != nil { // also those that are no flags here
				return err
			}
			return runExpose(cmd, env, req, detach, output, command)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Name, "as", "", "name of the Service")
	f.Lookup("as").Annotations = map[string][]string{flags.NoVariable: {}}
	f.StringVarP(&req.Namespace, "namespace", "n", "", "namespace of the Service (default: the session's)")
	f.UintSliceVar(&ports, "port", nil, "port of the Service, repeatable (default: 80 and LOCAL's; by UDP LOCAL's)")
	f.BoolVar(&detach, "detach", false, "leave the exposure to the daemon and return once it is ready")
	answer.Flag(f, &output, answer.StreamForms, ": how to print the exposure and each connection")
	flags.KubeBesideAs(f, kube, env.Kube)
	session.Flag(cmd)
	cmd.AddCommand(newExposeList(env), newExposeStop(env))
	for _, c := range cmd.Commands() {
		if c.Args == nil {
			c.Args = flags.NoArguments
		}
	}
	return cmd
}

func servicePorts(numbers []uint) ([]uint16, error) {
	var out []uint16
	for _, n := range numbers {
		if n == 0 || n > 65535 {
			return nil, exit.Usagef("port %d: want a number from 1 to 65535", n)
		}
		out = append(out, uint16(n))
	}
	return out, nil
}

// runExpose makes an exposure and keeps it as long as the command line says.
func runExpose(cmd *cobra.Command, env *caller.Env, req localapi.ExposeRequest, detach bool, output string, command []string) error {
	c, kube, err := session.Ensure(cmd.Context(), cmd, env, req.Namespace, output)
	if err != nil {
		return err
	}
	req.Kube = kube
	x := &exposed{teller: teller{env: env, output: output}, client: c, steps: env.Progress(output), start: time.Now()}
	defer x.steps.End()
	if !detach {
		return x.hold(cmd.Context(), req, command)
	}
	e, err := c.Expose(cmd.Context(), req, x.event)
	switch {
	case err != nil:
		return err
	case answer.ForPrograms(output):
		return answer.Print(env.Out, output, localapi.NewExposeList([]localapi.Exposure{e}))
	}
	x.show(e)
	return nil
}

// exposed is one run of expose.
type exposed struct {
	teller
	client *localapi.Client
	steps  *progress.Progress
	start  time.Time
}

// hold makes an exposure that lives until ctx is done or the command ends.
func (x *exposed) hold(ctx context.Context, req localapi.ExposeRequest, command []string) error {
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	connecting := context.AfterFunc(ctx, hangUp)
	ready, over := make(chan localapi.Exposure, 1), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := x.client.Expose(calls, req, func(e localapi.ExposeEvent) {
			if e.Type == localapi.ExposeReady {
				x.show(*e.Exposure)
				ready <- *e.Exposure
			}
			if e.Type != localapi.ExposeConnection || command == nil {
				x.event(e)
			}
		})
		over <- err
	})
	defer wg.Wait()
	defer hangUp()
	select {
	case e := <-ready:
		defer func() { hangUp(); x.stop(e) }()
	case err := <-over:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if command != nil {
		connecting() // the command hears of an interrupt itself, and the exposure outlives it
		return child.Run(ctx, x.env, command, over, "nothing is exposed any more")
	}
	err := <-over // hanging up ends it, too
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stop waits until an exposure is gone, which may be so already.
func (x *exposed) stop(e localapi.Exposure) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	_, err := x.client.StopExposing(ctx, e.Namespace, e.Name)
	x.stays(e.Name, err)
}

// event prints a step, with the time since the start, or a connection.
func (x *exposed) event(e localapi.ExposeEvent) {
	switch e.Type {
	case localapi.ExposeConnection:
		x.tell(*e.Connection, "", func(w io.Writer) { fmt.Fprintln(w, describeConnection(*e.Connection)) })
	case localapi.ExposeChanged:
		x.steps.News(e, e.Exposure.Name+": "+e.Text)
	case localapi.ExposeAdmitted:
		x.steps.Step(e, e.Time.Sub(x.start), string(e.Type), e.Text)
	default:
		x.steps.Step(e, 0, "", "")
	}
}

func (x *exposed) show(e localapi.Exposure) {
	x.tell(e, e.Name, func(w io.Writer) { printExposure(w, e) })
}

func newExposeList(env *caller.Env) *cobra.Command {
	return newList(env, things[localapi.Exposure]{
		short: "Say what is exposed", plural: "exposures",
		get: func(ctx context.Context, c *localapi.Client, owners bool, namespace string) ([]localapi.Exposure, error) {
			list, err := c.Exposed(ctx, owners, namespace)
			return list.Exposures, err
		},
		whole: func(all []localapi.Exposure) any { return localapi.NewExposeList(all) },
		place: func(e localapi.Exposure) (namespace, name string) { return e.Namespace, e.Name },
		print: printExposures, wide: printWideExposures,
	})
}

func newExposeStop(env *caller.Env) *cobra.Command {
	var namespace string
	cmd := newStop(env, "Take the Service's name away again", "exposures", "podnet expose list", "nothing is exposed", func(ctx context.Context, c *localapi.Client, name string) ([]string, error) {
		if name == "" && namespace != "" {
			return nil, exit.Usagef("--all and --namespace do not go together")
		}
		r, err := c.StopExposing(ctx, namespace, name)
		return r.Exposures, err
	})
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the Service, where the name is in several")
	return cmd
}
