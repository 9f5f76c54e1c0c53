package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

// session makes sure of one: it connects as connect does, unless something is
// connected already.
func session(ctx context.Context, cmd *cobra.Command, env *Base, namespace, output string) (*localapi.Client, localapi.Kube, error) {
	kube, err := env.Kube.Kube(env.Environ)
	if err != nil {
		return nil, kube, usage("%v", err)
	}
	c, socket := client(cmd)
	s, err := ask(ctx, c)
	if err != nil {
		return c, kube, err
	}
	if used, err := inUse(s, sessionName(cmd)); used || err != nil {
		return c, kube, err
	}
	req, err := connectDefaults(env)
	if err != nil {
		return c, kube, err
	}
	if req.Kube = kube; namespace != "" && !slices.Contains(req.Namespaces, namespace) {
		req.Namespaces = append(req.Namespaces, namespace)
	}
	steps := env.progress(output)
	defer steps.end()
	_, err = connect(ctx, env, c, socket, req, steps.event)
	return c, kube, err
}

// connectDefaults is what connect asks for when only the environment speaks.
func connectDefaults(env *Base) (localapi.ConnectRequest, error) {
	var req localapi.ConnectRequest
	var lease time.Duration
	f := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	connectFlags(f, env.Environ, &req, &lease)
	if err := env.preset(f); err != nil {
		return req, err
	}
	return req, checkConnect(&req, lease)
}

// connect asks the daemon, starting one where there is none.
func connect(ctx context.Context, env *Base, c *localapi.Client, socket string, req localapi.ConnectRequest, show func(localapi.Event)) (localapi.Status, error) {
	if err := summon(ctx, env, c, socket); err != nil {
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
