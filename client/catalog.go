package client

import (
	"context"
	"slices"

	"podnet.dev/client/localapi"
)

// lives says that the session is ready and not over.
func (s *Session) lives() bool { return s.ready.Load() && s.jobs.ctx.Err() == nil }

// Namespaces are those of the cluster that the user may list. Who may not, or cannot
// ask now, has those of the session.
func (s *Session) Namespaces(ctx context.Context) ([]string, error) {
	if !s.lives() {
		return nil, notReady()
	}
	all, err := s.cluster.Namespaces(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		s.mu.Lock()
		all = append(slices.Clone(s.status.Namespaces), s.status.Namespace)
		s.mu.Unlock()
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Services are those of a namespace of the cluster, "" being the one whose names
// need no suffix, each with how this machine calls it.
func (s *Session) Services(ctx context.Context, namespace string) ([]localapi.Service, error) {
	if !s.lives() {
		return nil, notReady()
	}
	s.mu.Lock()
	if namespace == "" {
		namespace = s.status.Namespace
	}
	domain := namespace
	if s.secondary.Load() {
		domain += ".svc." + s.status.DNS.Alias
	}
	s.mu.Unlock()
	return s.cluster.ServicesIn(ctx, namespace, domain)
}
