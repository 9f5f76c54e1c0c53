package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
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

// alone is a cluster that has a gateway of one namespace and no podnet beside it.
type alone struct {
	*exportCluster
	namespace string
}

func (a *alone) CreatePeer(_ context.Context, namespace, _ string, _ v1alpha1.PeerSpec) error {
	return &cluster.NotInstalledError{Server: "https://api", Namespace: namespace}
}

func (a *alone) UnlessAlone(_ context.Context, err error, namespace, own, what string) error {
	if a.namespace == namespace || a.namespace == own {
		return cluster.CannotAlone(a.namespace, what)
	}
	return err
}

func TestNamespaceModeExportsNothing(t *testing.T) {
	for name, c := range map[string]struct{ has, gateway, opens, says string }{
		"the namespace to open":      {"shop", "podnet-system", "shop", "the gateway of namespace shop cannot let in a device without podnet"},
		"the gateway's is named":     {"pay", "pay", "shop", "the gateway of namespace pay cannot let in a device without podnet"},
		"that of another one":        {"pay", "podnet-system", "shop", "podnet is not installed"},
		"the kubeconfig's namespace": {"shop", "podnet-system", "", "the gateway of namespace shop cannot let in a device without podnet"},
	} {
		f := &alone{newExportCluster(), c.has}
		x := NewExports(ExportsConfig{OpenCluster: func(localapi.Kube) (Cluster, error) { return f, nil }, Log: slog.New(slog.DiscardHandler)})
		req := phone()
		req.GatewayNamespace = c.gateway
		if c.opens != "" {
			req.Namespaces = []string{c.opens}
		}
		_, err := x.Export(t.Context(), req)
		if e := httpjson.FromError(err); err == nil || !strings.Contains(e.Message, c.says) || e.Code != localapi.CodeNotInstalled || e.Hint == "" || len(x.Exports()) > 0 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// closed is a cluster whose podnet is not for us.
type closed struct{ *exportCluster }

func (closed) CreatePeer(_ context.Context, namespace, _ string, _ v1alpha1.PeerSpec) error {
	return &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Resource: "peers", Namespace: namespace}, Ask: "kubectl create rolebinding"}
}

func (closed) DeletePeer(context.Context, string, string) error {
	return &localapi.Error{Code: localapi.CodeForbidden, Message: "delete our peer: forbidden", Hint: "use credentials that may"}
}

// TestRefusedExportSaysWhomToAsk and nothing of what it could not take back, as there was
// nothing.
func TestRefusedExportSaysWhomToAsk(t *testing.T) {
	x := NewExports(ExportsConfig{OpenCluster: func(localapi.Kube) (Cluster, error) { return closed{newExportCluster()}, nil }, Log: slog.New(slog.DiscardHandler)})
	_, err := x.Export(t.Context(), phone("shop"))
	if e := httpjson.FromError(err); err == nil || e.Message != "alice may not create peers in namespace podnet-system" || e.Hint != "ask an administrator for: kubectl create rolebinding" {
		t.Errorf("%+v", e)
	}
}
