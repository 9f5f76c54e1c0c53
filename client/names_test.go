package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
)

// TestSwitchOfNamespace: web is another Service at once; the session, its flows
// and its other namespaces stay as they are.
func TestSwitchOfNamespace(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.opens = []string{"shop", "pay"}
	l := w.connect(client.PathUDP)
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	means := func(name, want string) {
		t.Helper()
		a, err := l.session.QueryDNS(t.Context(), name, "")
		if err != nil || len(a.Asked) != 1 || a.Asked[0].Name != want || a.Asked[0].Server == "" || len(a.Answers) != 1 || a.Answers[0].Type != "A" {
			t.Errorf("%s: %+v, %v; want %s", name, a, err, want)
		}
	}
	means("web", "web.shop.svc.cluster.local.")
	if err := l.session.SetNamespace(t.Context(), "pay"); err != nil {
		t.Fatal(err)
	}
	means("web", "web.pay.svc.cluster.local.")
	means("web.shop", "web.shop.svc.cluster.local.")
	if c := l.status(); c.Namespace != "pay" || len(c.Namespaces) != 2 {
		t.Errorf("status %+v", c)
	}
	if search := l.host.Resolver().SearchDomains; len(search) == 0 || search[0] != "pay.svc.cluster.local" {
		t.Errorf("search %q", search)
	}
	l.hears(localapi.EventNamespace, "namespace pay")
	if !l.works() {
		t.Error("no flow any more")
	}

	var refused *localapi.Error
	if err := l.session.SetNamespace(t.Context(), "ops"); !errors.As(err, &refused) || refused.Code != localapi.CodeNotFound || refused.Hint == "" {
		t.Errorf("a namespace that is not open: %v", err)
	}
	means("web", "web.pay.svc.cluster.local.")
	if _, err := l.session.QueryDNS(t.Context(), "web", "nonsense"); !errors.As(err, &refused) || refused.Code != localapi.CodeUsage {
		t.Errorf("a type that is none: %v", err)
	}
	l.host.LookUp(t.Context(), "web.shop") // as a program does
	var asked []localapi.DNSQuery
	keep := func(q localapi.DNSQuery) error { asked = append(asked, q); return nil }
	if err := l.session.DNSQueries(t.Context(), false, func() {}, keep); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(asked, func(q localapi.DNSQuery) bool {
		return q.Name == "web.shop." && q.Type == "A" && q.Rcode == "NOERROR" && q.Kind == "DNSQuery" && q.Seq > 0 && !q.Time.IsZero() && q.Class == "short" && len(q.Answers) == 1
	}) {
		t.Errorf("the program's question is not in %+v", asked)
	}
	followed := make(chan error, 1)
	go func() { followed <- l.session.DNSQueries(context.Background(), true, func() {}, keep) }()
	l.leave()
	if err := <-followed; err != nil {
		t.Errorf("following ends with %v", err)
	}
	if err := l.session.SetNamespace(t.Context(), "shop"); !errors.As(err, &refused) || refused.Code != localapi.CodeNotConnected {
		t.Errorf("after the end: %v", err)
	}
}

// TestCatalogOfASession: what a menu offers is what the session can open, by the
// names that this machine has for it.
func TestCatalogOfASession(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.opens = []string{"shop", "pay"}
	l := w.connect(client.PathUDP)
	services := func(namespace string) string {
		t.Helper()
		all, err := l.session.Services(t.Context(), namespace)
		if err != nil || len(all) != 1 {
			t.Fatalf("services of %q: %+v, %v", namespace, all, err)
		}
		return all[0].Ports[0].URL
	}
	if got := services("") + " " + services("pay"); got != "http://web.shop http://web.pay" {
		t.Errorf("primary: %s", got)
	}
	if err := l.session.SetPrimary(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got, want := services(""), "http://web.shop.svc."+l.status().DNS.Alias; got != want {
		t.Errorf("secondary: %s, want %s", got, want)
	}
	if got, err := l.session.Namespaces(t.Context()); err != nil || !slices.Equal(got, []string{"shop"}) { // all that the town has
		t.Errorf("namespaces %v, %v", got, err)
	}
	l.leave()
	var refused *localapi.Error
	if _, err := l.session.Namespaces(t.Context()); !errors.As(err, &refused) || refused.Code != localapi.CodeNotConnected {
		t.Errorf("after the end: %v", err)
	}
}

// TestNamespacesOfWhoMayNotList are those of the session.
func TestNamespacesOfWhoMayNotList(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	w.opens = []string{"shop", "pay"}
	l := w.connect(client.PathUDP)
	w.Set(town.Trouble{Forbidden: true})
	if got, err := l.session.Namespaces(t.Context()); err != nil || !slices.Equal(got, []string{"pay", "shop"}) {
		t.Errorf("namespaces %v, %v", got, err)
	}
}
