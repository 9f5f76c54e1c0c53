// Package caller is who has called podnet: by which streams and environment, what flags
// are that they did not give, and how they want to be told what.
package caller

import (
	"context"
	"io"

	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

// Env is what every command works with.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Environ is the caller's environment.
	Environ []string
	// Kube are kubectl's connection flags.
	Kube KubeFlags
	// Ask puts a question to the user that is answered by yes or no; nil: there is
	// nobody at a terminal.
	Ask func(ctx context.Context, question string) bool
	// StartDaemon starts a daemon in the background and returns when it answers.
	StartDaemon func(ctx context.Context, socket string) error

	// Args is the command line.
	Args []string
	// Profile is the one that the command line names.
	Profile *localapi.Profile
	// layers are what flags are that nobody gave.
	layers []layer
	// told is how much the command line wants to hear.
	told told
	// Spoken is a text as it is said under the name that podnet was called by.
	Spoken func(string) string
}

// KubeFlags are kubectl's connection flags.
type KubeFlags interface {
	AddTo(*pflag.FlagSet)
	// Kube is what was set, to travel with the environment env.
	Kube(env []string) (localapi.Kube, error)
}
