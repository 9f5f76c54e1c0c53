// Package outbound lets programs of this machine reach a cluster that the machine itself has
// not joined: one command by podnet exec, whatever heeds a proxy by podnet proxy.
package outbound

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

// Host is what is asked of this machine.
type Host struct {
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
}

// setting is what these commands work with.
type setting struct {
	*caller.Env
	Host
}

// Commands are podnet exec and podnet proxy, and the processes that rooms consist of.
func Commands(env *caller.Env, host Host) []*cobra.Command {
	s := &setting{env, host}
	all := []*cobra.Command{newExec(s), newProxy(s)}
	if host.Rooms != nil {
		all = append(all, newExecAgent(s), newExecKeep(s))
	}
	return all
}
