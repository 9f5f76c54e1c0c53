package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// callTime is how long the daemon may take to answer a question about itself.
const callTime = 5 * time.Second

func newStatus(env *Env) *cobra.Command {
	var output string
	var watching, strict bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what is connected, and how",
		Long: `Say what is connected, and how. The exit status is 3 when nothing is, and with
--strict 9 when programs of this machine do not get the names of a cluster.

  podnet status --watch              go on saying it until interrupted: a terminal
                                     is redrawn, anything else gets a line an event
  podnet status --watch -o json      each event as a line of JSON`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watching && output == formName {
				return usage("-o name and --watch do not go together")
			}
			c, _ := client(cmd)
			if watching {
				return watch(cmd.Context(), env, c, output)
			}
			s, err := ask(cmd.Context(), c)
			if err != nil {
				return err
			}
			off := s.State != localapi.Connected && s.State != localapi.Degraded
			if err := showStatus(env, output, s); err != nil && !off { // of what is not connected a template may find nothing
				return err
			}
			if off {
				return exitError(exitNotConnected)
			}
			if strict && slices.ContainsFunc(s.Connections, func(c localapi.Connection) bool { return c.Since != nil && !c.DNS.Healthy }) {
				return exitError(exitDNS)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit status 9 when names do not resolve")
	outputFlag(cmd.Flags(), &output, listForms, "; the form for programs stays as it is")
	cmd.Flags().BoolVarP(&watching, "watch", "w", false, "go on until interrupted")
	return cmd
}

// showStatus prints a status in the form asked for.
func showStatus(env *Env, output string, s localapi.Status) error {
	switch {
	case forPrograms(output):
		return printAs(env.Out, output, s)
	case output == formName:
		return printNames(env.Out, s.Connections, func(c localapi.Connection) string { return c.Name })
	}
	w := env.paint(env.Out)
	printStatus(w, s, time.Now())
	if output == formWide {
		printWideStatus(w, s)
	}
	return nil
}

// ask asks for the status; where there is no daemon, nothing is connected.
func ask(ctx context.Context, c *localapi.Client) (localapi.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s, err := c.Status(ctx)
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		return localapi.NewStatus(), nil
	case errors.Is(err, context.DeadlineExceeded):
		return s, silentDaemon()
	}
	return s, err
}

func silentDaemon() error {
	return &localapi.Error{Code: localapi.CodeDaemon, Message: fmt.Sprintf("the daemon does not answer within %v", callTime), Hint: "podnet logs may say why"}
}

func newDisconnect(env *Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "disconnect [NAME | --all]",
		Short: "End a session and leave the machine as it was",
		Long: `End the session, or where several clusters are connected the one of a name, or
all. The others' flows, routes and names stay. When the primary session ends so,
the oldest of the others becomes it.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usage("one session, not %d; --all ends every one", len(args))
			case all && len(args) > 0:
				return usage("--all and the name of a session do not go together")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := client(cmd)
			end := c.For(strings.Join(args, "")).Disconnect
			if all {
				end = c.DisconnectAll
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			r, err := end(ctx)
			switch {
			case errors.Is(err, localapi.ErrNoDaemon):
				// What a killed daemon and its killed guard have left goes, too.
				if err := env.Cleanup(ctx); err != nil {
					return err
				}
				fmt.Fprintln(env.notes(), "not connected")
				return nil
			case errors.Is(err, context.DeadlineExceeded):
				return silentDaemon()
			case errors.Is(err, localapi.ErrDaemonEnded):
				return env.outlived(ctx, c)
			case err != nil:
				return err
			}
			if r.Exits {
				awaitExit(ctx, c, r.PID)
			}
			switch {
			case r.Sessions == 0:
				fmt.Fprintln(env.notes(), "not connected")
			case len(args) > 0 || r.Sessions > 1:
				fmt.Fprintln(env.notes(), "disconnected from "+strings.Join(r.Names, ", "))
			default:
				fmt.Fprintln(env.notes(), "disconnected")
			}
			if r.Primary != "" {
				fmt.Fprintf(env.notes(), "short names are those of %s now\n", r.Primary)
			}
			if !r.Exits {
				tellExports(ctx, env, c)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end every session")
	return cmd
}

// outlived is the error of a disconnect whose daemon ended in the middle of it. Nobody has
// said goodbye to the cluster then, but a process that is gone has no interface.
func (env *Env) outlived(ctx context.Context, c *localapi.Client) error {
	_, err := c.Version(ctx)
	for range 100 { // its socket outlives it by a moment
		if !errors.Is(err, localapi.ErrDaemonEnded) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		_, err = c.Version(ctx)
	}
	const ended = "the daemon ended before it had answered, and its sessions with it; "
	switch {
	case err == nil:
		return &localapi.Error{Code: localapi.CodeDaemon, Message: ended + "another one has started", Hint: "podnet status says what is connected, podnet disconnect ends it"}
	case !errors.Is(err, localapi.ErrNoDaemon):
		return err
	}
	if err := env.Cleanup(ctx); err != nil {
		return fmt.Errorf("%stake back what it left: %w", ended, err)
	}
	return &localapi.Error{Code: localapi.CodeDaemon, Message: ended + "this machine is not connected any more",
		Hint: "nothing is left to do here, and the cluster lets go when the lease ends, or at the next podnet connect; podnet logs may say why"}
}

// awaitExit waits until the daemon's process is gone, so that whoever looks
// after a disconnect finds nothing of it.
func awaitExit(ctx context.Context, c *localapi.Client, pid int) {
	for range 300 {
		if !alive(pid) {
			return
		}
		if _, err := c.Version(ctx); err == nil && pid == os.Getpid() {
			return // a daemon in our own process: in tests
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func newDaemon(env *Env) *cobra.Command {
	var o DaemonOptions
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the daemon in the foreground (connect starts one by itself)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, o.Socket = client(cmd)
			return env.RunDaemon(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.OnDemand, "on-demand", false, "end when there is nothing left to do")
	return cmd
}

func newGuard(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "guard STATE_DIR", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Clean up when the other end of standard input is gone",
		RunE:  func(_ *cobra.Command, args []string) error { return env.Guard(args[0], env.In) },
	}
}

func newCleanup(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "cleanup", Hidden: true,
		Short: "Take back what a killed daemon has left on this machine",
		RunE:  func(cmd *cobra.Command, _ []string) error { return env.Cleanup(cmd.Context()) },
	}
}
