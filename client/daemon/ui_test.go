package daemon

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// fakeDashboard is open or not.
type fakeDashboard struct {
	wanted atomic.Bool
	ran    atomic.Bool
	kube   localapi.Kube
}

func (f *fakeDashboard) Run(ctx context.Context) { f.ran.Store(true); <-ctx.Done() }
func (f *fakeDashboard) Wanted() bool            { return f.wanted.Load() }
func (f *fakeDashboard) Open(_ context.Context, req localapi.UIRequest) (localapi.UI, error) {
	f.kube = req.Kube
	f.wanted.Store(true)
	return localapi.UI{URL: "http://127.0.0.1:1/open/x"}, nil
}

// TestDashboardKeepsTheDaemon: who looks at the page, and disconnects there, wants to
// connect there again.
func TestDashboardKeepsTheDaemon(t *testing.T) {
	var f fakeDashboard
	c, _, done := start(t, &fakeHost{}, func(o *Options) { o.OnDemand, o.Idle, o.Dashboard = true, time.Second, &f })
	u, err := c.UI(t.Context(), localapi.UIRequest{Kube: localapi.Kube{Env: []string{"KUBECONFIG=/k"}}})
	if err != nil || u.URL != "http://127.0.0.1:1/open/x" || len(f.kube.Env) != 1 || !f.ran.Load() {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Disconnect(t.Context()); err != nil || r.Sessions != 1 || r.Exits {
		t.Errorf("%+v, %v", r, err)
	}
	select {
	case <-done:
		t.Fatal("the daemon has ended")
	case <-time.After(2 * time.Second): // longer than it waits for work
	}
	f.wanted.Store(false)
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the daemon stays for nobody")
	}
}

func TestNoDashboard(t *testing.T) {
	c, _, _ := start(t, &fakeHost{}, nil)
	if _, err := c.UI(t.Context(), localapi.UIRequest{}); httpjson.FromError(err).Code != localapi.CodeNotFound || httpjson.FromError(err).Status != http.StatusNotFound {
		t.Errorf("%v", err)
	}
}
