package client

import (
	"context"
	"errors"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

// The gateway of one namespace, where the whole cluster has none, or none for us.

// narrowing is how a session has come to the gateway of one namespace.
type narrowing struct {
	namespace string
	before    error // what the cluster's own said
}

// narrow goes over to the gateway of a namespace when the cluster's own has turned us
// away with that error, and reports whether there is one: in the namespace that podnet
// is said to be installed in, or else in the first that is to be opened.
func (s *Session) narrow(ctx context.Context, before error) bool {
	if !turnedAway(before) || s.Request.AllNamespaces {
		return false
	}
	c, ok := s.cluster.(interface {
		Namespaced(ctx context.Context, namespace string) (*cluster.Namespaced, error)
	})
	if !ok {
		return false
	}
	namespace := s.Request.Namespaces[0]
	if s.Request.GatewayNamespace != localapi.GatewayNamespace {
		namespace = s.Request.GatewayNamespace
	}
	other, err := c.Namespaced(ctx, namespace)
	if err != nil {
		s.Log.Info("cannot look for a gateway of one namespace", "namespace", namespace, "err", err)
	}
	if err != nil || other == nil {
		return false
	}
	s.narrowed = &narrowing{namespace, before}
	s.cluster, s.objects.cluster = other, other
	s.Request.GatewayNamespace, s.objects.request.GatewayNamespace = namespace, namespace
	s.set(func(c *localapi.Connection) { c.Gateway.Namespace, c.Gateway.Mode = namespace, localapi.ModeNamespace })
	return true
}

// turnedAway says whether an error is that a cluster has no podnet, or none for us: no Peer
// was made.
func turnedAway(err error) bool {
	var none *cluster.NotInstalledError
	var forbidden *cluster.ForbiddenError
	return errors.As(err, &none) || errors.As(err, &forbidden) && forbidden.Resource == "peers"
}

// wider is the error of enrolling: where the gateway of one namespace turned out not to
// be there either, what the cluster's own said.
func (s *Session) wider(err error) error {
	var none *cluster.NotInstalledError
	if s.narrowed != nil && errors.As(err, &none) {
		return s.narrowed.before
	}
	return err
}

// cannot refuses what only the whole cluster's gateway does; nil where it is that.
func (s *Session) cannot(what string) error {
	s.mu.Lock()
	mode, namespace := s.status.Gateway.Mode, s.status.Gateway.Namespace
	s.mu.Unlock()
	if mode == "" {
		return nil
	}
	return cluster.CannotAlone(namespace, what)
}

// unlessAlone is err, or what is so where there is but a gateway of one namespace; see
// cluster.Client.UnlessAlone.
func unlessAlone(ctx context.Context, c Cluster, err error, namespace, own, what string) error {
	if c, ok := c.(interface {
		UnlessAlone(ctx context.Context, err error, namespace, own, what string) error
	}); ok {
		return c.UnlessAlone(ctx, err, namespace, own, what)
	}
	return err
}
