package client

import (
	"context"
	"net/http"

	"podnet.dev/client/exposing"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
)

// expose starts what keeps the exposures, where the cluster can.
func (s *Session) expose(r *relay.Relay) {
	c, ok := s.cluster.(exposing.Cluster)
	if !ok {
		return
	}
	m := exposing.New(exposing.Config{Cluster: c, Relay: r, User: s.cluster.Whoami().User, Namespace: s.Request.Namespaces[0], Lease: s.leaseTime(), Log: s.Log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	s.mu.Lock()
	s.exposing = m
	s.mu.Unlock()
	s.steerFor()
	s.undo.add("the exposures", ending(cancel, done))
}

// exposed is the session's exposing, when there is one.
func (s *Session) exposed() (*exposing.Manager, error) {
	if err := s.cannot("expose anything"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exposing == nil || !s.ready.Load() {
		return nil, &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready to expose anything", Hint: "podnet status", Status: http.StatusConflict}
	}
	return s.exposing, nil
}

// Expose makes an exposure; see exposing.Manager, as for the others.
func (s *Session) Expose(ctx context.Context, req localapi.ExposeRequest, say func(localapi.ExposeEvent)) error {
	m, err := s.exposed()
	if err == nil {
		err = s.canLead(req.Kube, "nothing can be exposed")
	}
	if err != nil {
		return err
	}
	return m.Expose(ctx, req, say)
}

// Exposed lists our exposures, or with all everybody's in a namespace.
func (s *Session) Exposed(ctx context.Context, all bool, namespace string) ([]localapi.Exposure, error) {
	m, err := s.exposed()
	switch {
	case err != nil:
		return nil, err
	case all:
		return m.Everybodys(ctx, namespace)
	}
	return m.List(), nil
}

// StopExposing ends an exposure of ours, all with the name "".
func (s *Session) StopExposing(ctx context.Context, namespace, name string) ([]string, error) {
	m, err := s.exposed()
	if err != nil {
		return nil, err
	}
	return m.Stop(ctx, namespace, name)
}
