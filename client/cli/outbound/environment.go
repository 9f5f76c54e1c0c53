package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// ContainerRequest asks for a container's environment.
type ContainerRequest struct {
	Kube localapi.Kube
	// Namespace of the target; empty: the kubeconfig context's.
	Namespace string
	// Target has the container, as deploy/web.
	Target string
	// Container by its name; empty: the one that kubectl would take.
	Container string
}

// ContainerEnvironment is what a container's specification says of its environment.
type ContainerEnvironment struct {
	// Container that it is of, as "web of pod web-0".
	Container string
	// Vars are NAME=value, in the order of the specification.
	Vars []string
	// Unknown are those whose value cannot be had here, each with why.
	Unknown []string
}

// addEnvironment gives the command the environment of a container. It is written
// nowhere: Secrets are in it.
func (x *execution) addEnvironment(ctx context.Context) error {
	if x.envFrom == "" {
		return nil
	}
	if x.env.ContainerEnvironment == nil {
		return errors.New("there is no way to ask for a container's environment")
	}
	r := ContainerRequest{Kube: x.req.Kube, Target: x.envFrom, Container: x.container}
	if len(x.req.Namespaces) > 0 {
		r.Namespace = x.req.Namespaces[0]
	}
	e, err := x.env.ContainerEnvironment(ctx, r)
	if err != nil {
		return err
	}
	x.command.Env = append(slices.Clone(x.command.Env), e.Vars...) // the last of a name counts
	for _, u := range e.Unknown {
		fmt.Fprintf(words.Shown(x.env.Err), "warning: left out of the environment of %s: %s\n", e.Container, u)
	}
	return nil
}
