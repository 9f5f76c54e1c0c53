// Package child runs the command behind --, for which something else was made before and
// is taken back after it.
package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// EndTime is how long a command may take to end once it was told to.
const EndTime = 10 * time.Second

// Cut takes the command behind -- off the arguments; nil: there is none.
func Cut(cmd *cobra.Command, args []string) (before, command []string, err error) {
	at := cmd.ArgsLenAtDash()
	if at < 0 {
		return args, nil, nil
	}
	if len(args) == at {
		return nil, nil, exit.Usagef("no command behind --")
	}
	return args[:at], args[at:], nil
}

// Run runs the command that something was made for. Its exit status is ours. over gets
// what ended that before the command, and lost says what it means.
func Run(ctx context.Context, env *caller.Env, command []string, over <-chan error, lost string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = env.In, env.Out, env.Err, env.Environ
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = EndTime
	if err := cmd.Start(); err != nil {
		return &localapi.Error{Code: localapi.CodeUsage, Message: "the command does not start: " + err.Error(), Hint: "-- COMMAND...; a line of shell is -- sh -c '...'"}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-over:
			if err != nil && ctx.Err() == nil {
				fmt.Fprintf(env.Err, "warning: %s: %v\n", lost, err)
			}
			over = nil
		case err := <-done:
			var failed *exec.ExitError
			switch {
			case errors.As(err, &failed) && failed.ExitCode() >= 0:
				return exit.Status(failed.ExitCode())
			case errors.As(err, &failed):
				return exit.Status(exit.Generic)
			case ctx.Err() != nil:
				return nil // it ended well when it was told to
			}
			return err
		}
	}
}
