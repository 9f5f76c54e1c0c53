package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// holder holds a session until it hangs up, or the session is over.
func holder(t *testing.T, c *localapi.Client, req localapi.ConnectRequest) (hangUp, over func() error) {
	t.Helper()
	req.Hold = true
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := c.Connect(ctx, req, func(e localapi.Event) {
			if e.Type == localapi.EventReady {
				close(ready)
			}
		})
		ended <- err
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(5 * time.Second):
		t.Fatal("not ready")
	}
	t.Cleanup(cancel)
	return func() error { cancel(); return <-ended }, func() error { return <-ended }
}

// TestHeldSession ends with the last who holds it, unless somebody keeps it.
func TestHeldSession(t *testing.T) {
	h := &fakeHost{}
	c, _, _ := start(t, h, nil)
	req := localapi.ConnectRequest{Namespaces: []string{"shop"}}
	used := func(want int) func() bool { return func() bool { n, _ := h.count(); return n == want } }

	first, _ := holder(t, c, req)
	_, second := holder(t, c, req)
	if r, err := c.LetGo(t.Context()); err != nil || r.Sessions != 0 {
		t.Errorf("one of two let go: %+v, %v", r, err)
	}
	if err := first(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "one is left", func() bool { r, err := c.LetGo(t.Context()); return err == nil && r.Sessions == 1 })
	var over *localapi.Error
	if err := second(); !errors.As(err, &over) || over.Code != localapi.CodeEnded {
		t.Errorf("the other got %v", err)
	}
	if !used(0)() {
		t.Error("the session was not undone when LetGo came back")
	}

	third, _ := holder(t, c, req)
	if err := third(); !errors.Is(err, context.Canceled) { // killed, without a word
		t.Error(err)
	}
	eventually(t, "nobody holds it", used(0))

	fourth, _ := holder(t, c, req)
	if _, err := c.Connect(t.Context(), req, func(localapi.Event) {}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is kept", func() bool { r, err := c.LetGo(t.Context()); return err == nil && r.Sessions == 0 })
	if err := fourth(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	other := req
	other.As = "deploy/web"
	if _, err := c.Connect(t.Context(), other, func(localapi.Event) {}); !errors.As(err, &over) || over.Code != localapi.CodeConflict {
		t.Errorf("another identity: %v", err)
	}
	if !used(1)() {
		t.Error("the session that somebody keeps went with who held it")
	}
}
