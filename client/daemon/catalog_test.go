package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

// fakeCatalog is a cluster with one Service in each namespace.
type fakeCatalog struct{}

func (fakeCatalog) Namespaces(context.Context) ([]string, error) { return []string{"pay", "shop"}, nil }
func (fakeCatalog) Services(_ context.Context, namespace string) ([]localapi.Service, error) {
	if namespace == "secret" {
		return nil, &localapi.Error{Code: localapi.CodeForbidden, Message: "alice may not list services"}
	}
	return []localapi.Service{{Namespace: namespace, Name: "web"}}, nil
}

func TestCatalog(t *testing.T) {
	c, _, _ := start(t, &fakeHost{catalog: fakeCatalog{}}, func(o *Options) {
		o.Contexts = func(k localapi.Kube) ([]localapi.Context, error) {
			return []localapi.Context{{Name: "lab", Current: true}, {Name: strings.Join(k.Flags["kubeconfig"], "")}}, nil
		}
	})
	// What is offered is known before anything is connected; what a cluster has is not.
	all, err := c.Contexts(t.Context(), localapi.Kube{Flags: map[string][]string{"kubeconfig": {"/other"}}})
	if err != nil || len(all) != 2 || !all[0].Current || all[1].Name != "/other" {
		t.Errorf("contexts %+v, %v", all, err)
	}
	if _, err := c.Namespaces(t.Context()); code(err) != localapi.CodeNotConnected {
		t.Errorf("namespaces of nothing: %v", err)
	}
	mustConnect(t, c, localapi.ConnectRequest{})
	if got, err := c.Namespaces(t.Context()); err != nil || fmt.Sprint(got) != "[pay shop]" {
		t.Errorf("namespaces %v, %v", got, err)
	}
	if got, err := c.Services(t.Context(), "pay"); err != nil || len(got) != 1 || got[0].Namespace != "pay" {
		t.Errorf("services %+v, %v", got, err)
	}
	for namespace, want := range map[string]string{"secret": localapi.CodeForbidden, "../kube-system": localapi.CodeUsage} {
		if _, err := c.Services(t.Context(), namespace); code(err) != want {
			t.Errorf("services of %s: %v, want %s", namespace, err, want)
		}
	}
}

// fakeProfiles keeps them in memory.
type fakeProfiles map[string]localapi.Profile

func (f fakeProfiles) Profiles() (all []localapi.Profile, err error) {
	for _, p := range f {
		all = append(all, p)
	}
	return all, nil
}
func (f fakeProfiles) SaveProfile(p localapi.Profile) error { f[p.Name] = p; return nil }
func (f fakeProfiles) RemoveProfile(name string) error {
	if _, ok := f[name]; !ok {
		return noProfiles{}.RemoveProfile(name)
	}
	delete(f, name)
	return nil
}

func TestProfiles(t *testing.T) {
	kept := fakeProfiles{}
	c, _, _ := start(t, &fakeHost{}, func(o *Options) { o.Profiles = kept })
	p := localapi.Profile{Name: "staging", AutoConnect: true, Connect: localapi.Words{
		Context: "blue", Namespaces: []string{"shop"}, Beyond: localapi.Beyond{AlsoRoutes: []string{"10.20.0.0/16"}}}}
	if err := c.SaveProfile(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Profiles(t.Context()); err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], p) {
		t.Errorf("profiles %+v, %v, want %+v", all, err, p)
	}
	wrong, near := p, p
	wrong.Connect.Path, near.Connect.Kubeconfig = "pigeon", "./config"
	for what, p := range map[string]localapi.Profile{"a path that is none": wrong, "a kubeconfig that is wherever one stands": near, "a name that is none": {Name: "Blue Team"}} {
		if err := c.SaveProfile(t.Context(), p); code(err) != localapi.CodeUsage {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := c.RemoveProfile(t.Context(), "red"); code(err) != localapi.CodeNotFound {
		t.Errorf("remove what is not there: %v", err)
	}
	if err := c.RemoveProfile(t.Context(), "staging"); err != nil || len(kept) != 0 {
		t.Errorf("removed: %v, left %v", err, kept)
	}
}

// TestDefaultsAreThoseOfEverybody: a menu that says only which context joins what the
// command line, which says everything, has made; and nonsense is nobody's session.
func TestDefaultsAreThoseOfEverybody(t *testing.T) {
	c, _, _ := start(t, &fakeHost{}, contexts)
	mustConnect(t, c, to("lab"), to("lab").WithDefaults())
	if got := names(t, c); got != "lab*" {
		t.Errorf("sessions %q", got)
	}
	odd := to("blue")
	odd.LeaseSeconds = 5
	if _, err := c.Connect(t.Context(), odd, ignore); code(err) != localapi.CodeUsage {
		t.Errorf("a lease of 5 s: %v", err)
	}
}

func TestRequestOfAProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	r := localapi.Profile{Name: "staging", Connect: localapi.Words{Context: "blue", Kubeconfig: file, Path: "udp", Reconnect: true}}.Request([]string{"A=b"})
	at := localapi.Profile{Connect: localapi.Words{Kubeconfig: "~/lab"}}.Request([]string{"HOME=/home/ada"}).Kube.Flags["kubeconfig"]
	if len(at) != 1 || at[0] != "/home/ada/lab" {
		t.Errorf("~/lab is %q", at)
	}
	want := localapi.ConnectRequest{Name: "staging", Path: "udp", Reconnect: true,
		Kube: localapi.Kube{Flags: map[string][]string{"context": {"blue"}, "kubeconfig": {file}}, Env: []string{"A=b"}}}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
}
