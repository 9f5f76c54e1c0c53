package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

func newDisconnect(env *caller.Env, cleanup func(context.Context) error) *cobra.Command {
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
				return exit.Usagef("one session, not %d; --all ends every one", len(args))
			case all && len(args) > 0:
				return exit.Usagef("--all and the name of a session do not go together")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := session.Client(cmd)
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
				if err := cleanup(ctx); err != nil {
					return err
				}
				fmt.Fprintln(env.Notes(), "not connected")
				return nil
			case errors.Is(err, context.DeadlineExceeded):
				return session.SilentDaemon()
			case errors.Is(err, localapi.ErrDaemonEnded):
				return outlived(ctx, c, cleanup)
			case err != nil:
				return err
			}
			if r.Exits {
				session.AwaitExit(ctx, c, r.PID)
			}
			switch {
			case r.Sessions == 0:
				fmt.Fprintln(env.Notes(), "not connected")
			case len(args) > 0 || r.Sessions > 1:
				fmt.Fprintln(env.Notes(), "disconnected from "+strings.Join(r.Names, ", "))
			default:
				fmt.Fprintln(env.Notes(), "disconnected")
			}
			if r.Primary != "" {
				fmt.Fprintf(env.Notes(), "short names are those of %s now\n", r.Primary)
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

// tellExports says for what the daemon stays although nothing is connected.
func tellExports(ctx context.Context, env *caller.Env, c *localapi.Client) {
	if s, err := c.Status(ctx); err == nil && len(s.Exports) > 0 {
		fmt.Fprintln(env.Notes(), "the daemon stays to renew what was exported: podnet export revoke --all ends that")
	}
}

// outlived is the error of a disconnect whose daemon ended in the middle of it. Nobody has
// said goodbye to the cluster then, but a process that is gone has no interface.
func outlived(ctx context.Context, c *localapi.Client, cleanup func(context.Context) error) error {
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
	if err := cleanup(ctx); err != nil {
		return fmt.Errorf("%stake back what it left: %w", ended, err)
	}
	return &localapi.Error{Code: localapi.CodeDaemon, Message: ended + "this machine is not connected any more",
		Hint: "nothing is left to do here, and the cluster lets go when the lease ends, or at the next podnet connect; podnet logs may say why"}
}
