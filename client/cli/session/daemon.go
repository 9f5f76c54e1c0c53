package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

// CallTime is how long the daemon may take to answer a question about itself.
const CallTime = 5 * time.Second

// Client is the daemon's client for a command, and for the session that the
// command names.
func Client(cmd *cobra.Command) (*localapi.Client, string) {
	socket, _ := cmd.Flags().GetString("socket")
	if socket == "" {
		socket = localapi.RuntimeDir() + string(os.PathSeparator) + localapi.SocketName
	}
	return localapi.NewClient(socket).For(NameOf(cmd)), socket
}

// Summon starts a daemon where there is none.
func Summon(ctx context.Context, env *caller.Env, c *localapi.Client, socket string) error {
	v, err := c.Version(ctx)
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		return env.StartDaemon(ctx, socket)
	case err != nil:
		return err
	case v.Version != version.Version:
		fmt.Fprintf(env.Err, "warning: the running daemon is podnet %s, this is %s: podnet disconnect ends it\n", v.Version, version.Version)
	}
	return nil
}

// Status asks for the status; where there is no daemon, nothing is connected.
func Status(ctx context.Context, c *localapi.Client) (localapi.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTime)
	defer cancel()
	s, err := c.Status(ctx)
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		return localapi.NewStatus(), nil
	case errors.Is(err, context.DeadlineExceeded):
		return s, SilentDaemon()
	}
	return s, err
}

// SilentDaemon is the error of one that takes its time.
func SilentDaemon() error {
	return &localapi.Error{Code: localapi.CodeDaemon, Message: fmt.Sprintf("the daemon does not answer within %v", CallTime), Hint: "podnet logs may say why"}
}

// NotConnected is err, where no daemon means that nothing is connected.
func NotConnected(err error) *localapi.Error {
	var e *localapi.Error
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		return &localapi.Error{Code: localapi.CodeNotConnected, Message: "nothing is connected", Hint: "podnet connect"}
	case errors.As(err, &e):
		return e
	}
	return &localapi.Error{Code: localapi.CodeInternal, Message: err.Error()}
}

// WithLog adds the daemon's log to an error, unless it is of somebody's own making.
func WithLog(ctx context.Context, c *localapi.Client, err error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if v, lost := c.Version(ctx); lost == nil && v.Log != "" {
		return exit.WithLog(err, v.Log)
	}
	return err
}

// AwaitExit waits until the daemon's process is gone, so that whoever looks
// after a disconnect finds nothing of it.
func AwaitExit(ctx context.Context, c *localapi.Client, pid int) {
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
