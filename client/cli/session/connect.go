package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
)

// Ensure makes sure of one: it connects as connect does, unless something is
// connected already.
func Ensure(ctx context.Context, cmd *cobra.Command, env *caller.Env, namespace, output string) (*localapi.Client, localapi.Kube, error) {
	kube, err := env.Kube.Kube(env.Environ)
	if err != nil {
		return nil, kube, exit.Usagef("%v", err)
	}
	c, socket := Client(cmd)
	s, err := Status(ctx, c)
	if err != nil {
		return c, kube, err
	}
	if used, err := InUse(s, NameOf(cmd)); used || err != nil {
		return c, kube, err
	}
	req, err := connectDefaults(env)
	if err != nil {
		return c, kube, err
	}
	if req.Kube = kube; namespace != "" && !slices.Contains(req.Namespaces, namespace) {
		req.Namespaces = append(req.Namespaces, namespace)
	}
	steps := env.Progress(output)
	defer steps.End()
	_, err = Connect(ctx, env, c, socket, req, steps.Event)
	return c, kube, err
}

// connectDefaults is what connect asks for when only the environment speaks.
func connectDefaults(env *caller.Env) (localapi.ConnectRequest, error) {
	var req localapi.ConnectRequest
	var lease time.Duration
	f := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	flags.Connect(f, env.Environ, &req, &lease)
	if err := env.Preset(f); err != nil {
		return req, err
	}
	return req, flags.CheckConnect(&req, lease)
}

// Connect asks the daemon, starting one where there is none.
func Connect(ctx context.Context, env *caller.Env, c *localapi.Client, socket string, req localapi.ConnectRequest, show func(localapi.Event)) (localapi.Status, error) {
	if err := Summon(ctx, env, c, socket); err != nil {
		return localapi.Status{}, err
	}
	begun := false
	status, err := c.Connect(ctx, req, func(e localapi.Event) {
		begun = true
		show(e)
	})
	var daemonGone *localapi.Error
	if !begun && errors.As(err, &daemonGone) && daemonGone.Code == localapi.CodeDaemon || errors.Is(err, localapi.ErrNoDaemon) {
		// It was about to end for want of work. Once is chance, twice is not.
		if err := env.StartDaemon(ctx, socket); err != nil {
			return localapi.Status{}, err
		}
		status, err = c.Connect(ctx, req, show)
	}
	return status, err
}
