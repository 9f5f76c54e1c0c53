package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
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
