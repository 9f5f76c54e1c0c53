package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// contexts says that each context of the kubeconfig is a cluster of its own, but
// for lab-admin, which is lab's.
func contexts(o *Options) {
	o.Where = func(k localapi.Kube) (string, string, error) {
		name := strings.Join(k.Flags["context"], "")
		if name == "" {
			return "", "", &localapi.Error{Code: localapi.CodeCredentials, Message: "no context"}
		}
		return name, "https://" + strings.TrimSuffix(name, "-admin"), nil
	}
}

func to(context string) localapi.ConnectRequest {
	return localapi.ConnectRequest{Kube: localapi.Kube{Flags: map[string][]string{"context": {context}}}}
}

func mustConnect(t *testing.T, c *localapi.Client, reqs ...localapi.ConnectRequest) {
	t.Helper()
	for _, req := range reqs {
		if _, err := c.Connect(t.Context(), req, ignore); err != nil {
			t.Fatal(err)
		}
	}
}

// names are those of the sessions that are connected, * behind the primary.
func names(t *testing.T, c *localapi.Client) string {
	t.Helper()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range s.Connections {
		if c.Primary {
			c.Name += "*"
		}
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

func code(err error) string {
	var e *localapi.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return e.Code
}

func TestSeveralClusters(t *testing.T) {
	h := &fakeHost{}
	c, _, _ := start(t, h, contexts)
	mustConnect(t, c, to("lab"), to("blue"), to("lab")) // the last joins
	if got := names(t, c); got != "lab* blue" {
		t.Errorf("sessions %q", got)
	}
	if inUse, made := h.count(); inUse != 2 || made != 2 {
		t.Errorf("%d in use of %d made", inUse, made)
	}
	if got := state(t, c); got != localapi.Connected {
		t.Errorf("state %s", got)
	}
	named := to("lab")
	named.Name = "other"
	alike := to("Blue")
	for what, req := range map[string]localapi.ConnectRequest{
		"the same cluster as somebody else": to("lab-admin"), "the same cluster by another name": named, "a name that looks alike": alike,
	} {
		if _, err := c.Connect(t.Context(), req, ignore); code(err) != localapi.CodeConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Connect(t.Context(), localapi.ConnectRequest{}, ignore); code(err) != localapi.CodeCredentials {
		t.Errorf("a kubeconfig that cannot be read: %v", err)
	}
	alike.Name = "green"
	mustConnect(t, c, alike)
	if _, err := c.Disconnect(t.Context()); code(err) != localapi.CodeUsage || !strings.Contains(err.Error(), "lab, blue, green") {
		t.Errorf("disconnect without a name: %v", err)
	}
	if _, err := c.For("red").Disconnect(t.Context()); code(err) != localapi.CodeNotConnected {
		t.Errorf("disconnect of nothing: %v", err)
	}
	r, err := c.For("blue").Disconnect(t.Context())
	if err != nil || r.Sessions != 1 || len(r.Names) != 1 || r.Names[0] != "blue" || r.Primary != "" {
		t.Errorf("disconnect blue: %+v, %v", r, err)
	}
	if got := names(t, c); got != "lab* green" {
		t.Errorf("sessions %q", got)
	}
	if r, err := c.DisconnectAll(t.Context()); err != nil || r.Sessions != 2 || r.Primary != "" {
		t.Errorf("disconnect all: %+v, %v", r, err)
	}
	if got := names(t, c); got != "" {
		t.Errorf("sessions %q", got)
	}
}

func TestPrimary(t *testing.T) {
	h := &fakeHost{end: make(chan error)}
	c, _, _ := start(t, h, contexts)
	told := follow(t, c, 0)
	mustConnect(t, c, to("lab"), to("blue"))
	if err := c.SetPrimary(t.Context(), "blue"); err != nil || names(t, c) != "lab blue*" {
		t.Errorf("sessions %q, %v", names(t, c), err)
	}
	if err := c.SetPrimary(t.Context(), "red"); code(err) != localapi.CodeNotConnected {
		t.Errorf("no such session: %v", err)
	}
	first := to("lab")
	first.Primary = true
	mustConnect(t, c, first) // joins, and leads
	if got := names(t, c); got != "lab* blue" {
		t.Errorf("sessions %q", got)
	}
	h.mu.Lock()
	h.stuck = true
	h.mu.Unlock()
	if err := c.SetPrimary(t.Context(), "blue"); err == nil || names(t, c) != "lab* blue" {
		t.Errorf("a resolver that fails: %v, sessions %q", err, names(t, c))
	}
	h.mu.Lock()
	h.stuck = false
	h.mu.Unlock()
	// Who is disconnected leaves it to the oldest.
	r, err := c.For("lab").Disconnect(t.Context())
	if err != nil || r.Primary != "blue" || names(t, c) != "blue*" {
		t.Errorf("disconnect = %+v, %v, sessions %q", r, err, names(t, c))
	}
	eventually(t, "the listener hears who is primary", func() bool { return strings.Count(told.types(), "primary") == 3 })
}

// TestPrimaryThatEndsByItself leaves its names to nobody, and what asks for no
// session by name goes to none of several.
func TestPrimaryThatEndsByItself(t *testing.T) {
	ends := map[string]chan error{"lab": make(chan error), "blue": nil, "green": nil}
	hold := make(chan struct{})
	close(hold)
	c, _, _ := start(t, &fakeHost{}, func(o *Options) {
		contexts(o)
		o.NewSession = func(req localapi.ConnectRequest, events func(localapi.Event)) Session {
			return &fakeSession{req: req, events: events, host: &fakeHost{hold: hold, end: ends[req.Name]}, Naming: echoNames{req.Name}}
		}
	})
	mustConnect(t, c, to("lab"), to("blue"), to("green"))
	ask := func(c *localapi.Client) string {
		a, err := c.QueryDNS(t.Context(), "web", "")
		if err != nil {
			return code(err)
		}
		return a.Name
	}
	if got := ask(c) + " " + ask(c.For("blue")) + " " + ask(c.For("red")); got != "lab blue not-connected" {
		t.Errorf("answers %s", got)
	}
	ends["lab"] <- &localapi.Error{Code: localapi.CodeEnded, Message: "the peer was deleted"}
	eventually(t, "lab is over", func() bool { return !strings.Contains(names(t, c), "lab") })
	if got := names(t, c) + ", " + ask(c); got != "blue green, usage" {
		t.Errorf("sessions and answer: %s", got)
	}
	s, err := c.Status(t.Context())
	if err != nil || s.State != localapi.Connected || s.LastError == nil || len(s.Warnings) != 1 || s.Warnings[0].Code != "no-primary" {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := c.For("green").Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, c) + ", " + ask(c); got != "blue, blue" {
		t.Errorf("sessions and answer: %s", got)
	}
	mustConnect(t, c, to("lab")) // is primary again
	if got := names(t, c) + ", " + ask(c); got != "blue lab*, lab" {
		t.Errorf("sessions and answer: %s", got)
	}
}

// echoNames answers with the name of its session.
type echoNames struct{ name string }

func (e echoNames) QueryDNS(context.Context, string, string) (localapi.DNSAnswer, error) {
	return localapi.DNSAnswer{Name: e.name}, nil
}
func (echoNames) DNSQueries(context.Context, bool, func(), func(localapi.DNSQuery) error) error {
	return nil
}
func (echoNames) OpenAddress(string) error                   { return nil }
func (echoNames) SetNamespace(context.Context, string) error { return nil }
func (echoNames) SetPrimary(context.Context, bool) error     { return nil }

// TestEndOfOneLeavesTheOthers: an on-demand daemon stays for what is left, and
// sessions come and go at the same time.
func TestEndOfOneLeavesTheOthers(t *testing.T) {
	h := &fakeHost{undoing: 5 * time.Millisecond}
	c, _, done := start(t, h, func(o *Options) { contexts(o); o.OnDemand, o.Idle = true, time.Hour })
	mustConnect(t, c, to("lab"))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("c", i)
			for range 5 {
				if _, err := c.Connect(t.Context(), to(name), ignore); err != nil {
					t.Error(err)
				}
				if r, err := c.For(name).Disconnect(t.Context()); err != nil || r.Sessions != 1 || r.Exits {
					t.Errorf("disconnect %s = %+v, %v", name, r, err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, c); got != "lab*" {
		t.Errorf("sessions %q", got)
	}
	if r, err := c.Disconnect(t.Context()); err != nil || !r.Exits {
		t.Errorf("disconnect = %+v, %v", r, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
