package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

// elsewhere is a cluster that has a gateway of one namespace, or none.
type elsewhere struct {
	*fakeCluster
	has    *cluster.Namespaced
	err    error
	looked []string
}

func (e *elsewhere) Namespaced(_ context.Context, namespace string) (*cluster.Namespaced, error) {
	e.looked = append(e.looked, namespace)
	return e.has, e.err
}

func TestWhenToLookForOneNamespacesGateway(t *testing.T) {
	none := &cluster.NotInstalledError{Server: "https://api"}
	forbidden := func(resource string) error {
		return &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Resource: resource}}
	}
	for name, c := range map[string]struct {
		before  error
		change  func(*localapi.ConnectRequest)
		has     *cluster.Namespaced
		err     error
		looked  string
		narrows bool
	}{
		"not installed":                    {before: none, has: new(cluster.Namespaced), looked: "shop", narrows: true},
		"not let in":                       {before: forbidden("peers"), has: new(cluster.Namespaced), looked: "shop", narrows: true},
		"said to be there":                 {before: none, change: func(r *localapi.ConnectRequest) { r.GatewayNamespace = "pay" }, has: new(cluster.Namespaced), looked: "pay", narrows: true},
		"there is none":                    {before: none, looked: "shop"},
		"it cannot be looked for":          {before: none, err: errors.New("away"), looked: "shop"},
		"the namespace may not be opened":  {before: forbidden("pods")},
		"another error":                    {before: errors.New("no answer")},
		"all namespaces":                   {before: none, change: func(r *localapi.ConnectRequest) { r.AllNamespaces = true }},
		"the gateway's namespace is usual": {before: none, change: func(r *localapi.ConnectRequest) { r.GatewayNamespace = localapi.GatewayNamespace }, has: new(cluster.Namespaced), looked: "shop", narrows: true},
	} {
		e := &elsewhere{fakeCluster: newFakeCluster(), has: c.has, err: c.err}
		s, _ := newTestSession(t, e.fakeCluster, &closer{}, "shop", "pay")
		if c.change != nil {
			c.change(&s.Request)
		}
		s.cluster, s.objects = e, newMembership(t, e.fakeCluster)
		s.Log = slog.New(slog.DiscardHandler)
		if got := s.narrow(t.Context(), c.before); got != c.narrows || strings.Join(e.looked, " ") != c.looked {
			t.Errorf("%s: %v, looked in %q", name, got, e.looked)
		}
		status, _ := s.Status()
		if (status.Gateway.Mode == localapi.ModeNamespace) != c.narrows || c.narrows && (s.Request.GatewayNamespace != c.looked || s.objects.request.GatewayNamespace != c.looked) {
			t.Errorf("%s: %+v, asks %q", name, status.Gateway, s.Request.GatewayNamespace)
		}
		if c.narrows && s.wider(&cluster.NotInstalledError{}) != c.before {
			t.Errorf("%s: what the cluster's own said is forgotten", name)
		}
	}
}

func TestNamespaceModeSteersNothing(t *testing.T) {
	s, _ := newTestSession(t, newFakeCluster(), &closer{}, "shop")
	s.set(func(c *localapi.Connection) { c.Gateway.Mode, c.Gateway.Namespace = localapi.ModeNamespace, "shop" })
	for what, do := range map[string]func() error{
		"steer":         func() error { _, err := s.steered(); return err },
		"expose":        func() error { _, err := s.exposed(); return err },
		"send as a pod": func() error { _, err := s.identify(t.Context()); return err },
	} {
		var no *localapi.Error
		if err := do(); !errors.As(err, &no) || no.Code != localapi.CodeNotInstalled || !strings.Contains(no.Message, "namespace shop cannot") || no.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
