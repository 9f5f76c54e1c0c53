package steering

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/internal/httpjson"
)

const lease = 300 * time.Second

// steer asks for a rule and returns the types of the events.
func steerIn(ctx context.Context, m *Manager, req localapi.SteerRequest) (types []localapi.SteerEventType, err error) {
	err = m.Steer(ctx, req, func(e localapi.SteerEvent) { types = append(types, e.Type) })
	return types, err
}

// pass lets time pass, and what is to be done in it be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestSteerAllPods: three pods, one agent each, a fourth that comes, one that
// goes, an end without anything left.
func TestSteerAllPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1", "web-2", "web-3")
		m, stop := w.manager()
		types, err := steerIn(t.Context(), m, request8080)
		want := []localapi.SteerEventType{localapi.SteerTarget, localapi.SteerRules}
		if err != nil || len(types) < 3 || !slices.Equal(types[:2], want) || types[len(types)-1] != localapi.SteerReady {
			t.Fatalf("%v: %v", err, types)
		}
		list := m.List()
		if len(list) != 1 || list[0].Name != "web-8080" || list[0].Ready != 3 || len(list[0].Pods) != 3 || list[0].Matched != 9 || list[0].Number != 8080 {
			t.Fatalf("%+v", list)
		}
		synctest.Wait()
		for _, o := range w.objects {
			s := o.Spec
			if !strings.HasPrefix(o.Name, "alice-example-org-web-8080-web-") || s.Rule != "web-8080" || s.Peer != "u1" || s.RelayPort != 20000 || s.Local != "3000" || s.Target != "deploy/web" ||
				o.OwnerReferences[0].UID != metaUID(s.PodUID) || o.Namespace != "shop" {
				t.Errorf("%+v", o)
			}
		}
		w.add("web-4")
		w.remove("web-1")
		pass(time.Second)
		if list := m.List(); list[0].Ready != 3 || list[0].Pods[2].Name != "web-4" {
			t.Errorf("%+v", list[0])
		}
		if n := w.count("inject"); n != 4 {
			t.Errorf("%d agents were put into 4 pods", n)
		}
		m.Renew()
		pass(time.Second)
		if n := w.count("renew"); n != 3 {
			t.Errorf("%d renewals", n)
		}
		// The same again is the same; another of the name is not.
		if _, err := steerIn(t.Context(), m, request8080); err != nil || len(m.List()) != 1 {
			t.Errorf("%v, %d rules", err, len(m.List()))
		}
		other := request8080
		other.Name, other.Local = "web-8080", "4000"
		if _, err := steerIn(t.Context(), m, other); httpjson.FromError(err).Code != localapi.CodeConflict {
			t.Errorf("a rule of the same name: %v", err)
		}
		stop()
		if len(w.objects) != 0 || len(w.rules) != 0 {
			t.Errorf("left %v, relayed %v", w.objects, w.rules)
		}
	})
}

// TestNoRuleIsLeft where somebody says no.
func TestNoRuleIsLeft(t *testing.T) {
	clash := metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonClash, Message: "bob steals the same requests"}
	for name, c := range map[string]struct {
		spoil    func(*world)
		req      localapi.SteerRequest
		code     string
		says     string
		injected int
	}{
		"Pod Security": {func(w *world) { w.refuse = &cluster.RefusedError{Text: "violates PodSecurity", Advice: "ask"} }, request8080, localapi.CodeForbidden, "violates PodSecurity", 0},
		"admission":    {func(w *world) { w.deny = &localapi.Error{Code: localapi.CodeForbidden, Message: "may not"} }, request8080, localapi.CodeForbidden, "may not", 0},
		"a clash":      {func(w *world) { w.verdict = clash }, request8080, localapi.CodeConflict, "bob steals", 0},
		"a bad agent":  {func(w *world) { w.hello = "no nftables" }, request8080, localapi.CodeDeploy, "no nftables", 1},
		"no pods":      {func(w *world) { w.remove("web-1") }, request8080, localapi.CodeNotFound, "no pod", 0},
		"no port": {func(w *world) {
			w.port, w.setError = 0, &localapi.Error{Code: localapi.CodeUsage, Message: "no such port"}
		}, request8080, localapi.CodeUsage, "no such port", 0},
		"no target":  {func(*world) {}, localapi.SteerRequest{Target: "deploy/none", Port: "8080"}, localapi.CodeUsage, "", 0},
		"a bad kind": {func(*world) {}, localapi.SteerRequest{Target: "node/x", Port: "8080"}, localapi.CodeUsage, "no kind", 0},
		"silence":    {func(w *world) { w.silent = true }, request8080, localapi.CodeTimeout, "did not become ready", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web-1")
				c.spoil(w)
				m, stop := w.manager()
				defer stop()
				_, err := steerIn(t.Context(), m, c.req)
				synctest.Wait()
				if e := httpjson.FromError(err); err == nil || e.Code != c.code || !strings.Contains(e.Message, c.says) {
					t.Errorf("%v (%+v)", err, e)
				}
				if len(w.objects) != 0 || len(m.List()) != 0 {
					t.Errorf("left %v, %v", w.objects, m.List())
				}
				if n := w.count("inject"); n != c.injected {
					t.Errorf("%d agents", n)
				}
			})
		})
	}
}

// TestAgentsEnd: they are replaced, but not for ever.
func TestAgentsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		if _, err := steerIn(t.Context(), m, request8080); err != nil {
			t.Fatal(err)
		}
		for i := 2; i <= maxInjections; i++ {
			w.kill("web-1")
			pass(time.Second)
			if r := m.List()[0]; r.Ready != 1 || w.count("inject") != i {
				t.Fatalf("agent %d: %+v", i, r)
			}
		}
		w.kill("web-1")
		pass(time.Second)
		if p := m.List()[0].Pods[0]; p.State != localapi.SteerPodTrouble || !strings.Contains(p.Text, "4 agents ended") || p.Hint == "" {
			t.Errorf("%+v", p)
		}
		pass(injectTime)
		if r := m.List()[0]; r.Ready != 1 || w.count("inject") != maxInjections+1 {
			t.Errorf("later: %+v, %d agents", r, w.count("inject"))
		}
	})
}

// TestAnotherKey: the session enrolled again, and the gateways have new keys.
func TestAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		if _, err := steerIn(t.Context(), m, request8080); err != nil {
			t.Fatal(err)
		}
		m.SetMember(Member{Peer: "u2", Gateways: []v1alpha1.Gateway{{PublicKey: "g1"}}})
		pass(time.Second)
		if len(w.objects) != 1 || w.count("inject") != 1 || m.List()[0].Ready != 1 {
			t.Errorf("%d objects, %d agents, %+v", len(w.objects), w.count("inject"), m.List())
		}
		for _, o := range w.objects {
			if o.Spec.Peer != "u2" || o.Spec.AgentKey == "" {
				t.Errorf("%+v", o.Spec)
			}
		}
		w.with(func() { w.silent = true }) // the agent knows no gateway any more
		m.SetMember(Member{Peer: "u2", Gateways: []v1alpha1.Gateway{{PublicKey: "g2"}}})
		pass(time.Second)
		w.with(func() { w.silent = false })
		pass(10 * time.Second)
		if n := w.count("inject"); n != 2 || m.List()[0].Ready != 1 {
			t.Errorf("%d agents, %+v", n, m.List())
		}
	})
}

// TestRevoked: an object that somebody deletes is not written again; one whose
// lease was over is.
func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		held := request8080
		held.Hold = true
		ended := make(chan error, 1)
		go func() { _, err := steerIn(t.Context(), m, held); ended <- err }()
		pass(time.Second)
		names, err := m.Revoke(t.Context(), "shop", "web-8080")
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, errRevoked) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("nobody noticed")
		}
		if _, err := steerIn(t.Context(), m, request8080); err != nil {
			t.Fatal(err)
		}
		pass(lease) // asleep
		if _, err := m.Revoke(t.Context(), "shop", "web-8080"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if l := m.List(); len(l) != 1 || l[0].Ready != 1 {
			t.Errorf("%+v", l)
		}
	})
}

// TestHeld: the rule goes with its caller, and says what it takes.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		req := request8080
		req.Hold = true
		ctx, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := steerIn(ctx, m, req); err != nil {
				t.Error(err)
			}
		})
		pass(time.Second)
		var lines []localapi.SteeredRequest
		begun := 0
		wg.Go(func() {
			err := m.Requests(t.Context(), "web-8080", true, func() { begun++ }, func(q localapi.SteeredRequest) error { lines = append(lines, q); return nil })
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		for _, fn := range w.subs {
			fn(relay.Request{Rule: "web-8080", Pod: "web-1", By: relay.ByApp})
			fn(relay.Request{Rule: "another"})
		}
		synctest.Wait()
		hangUp()
		wg.Wait()
		synctest.Wait()
		if begun != 1 || len(lines) != 2 || lines[0].By != "laptop" || lines[1].By != "app" {
			t.Errorf("%d, %+v", begun, lines)
		}
		if len(w.objects) != 0 || len(m.List()) != 0 {
			t.Errorf("left %v", w.objects)
		}
		if err := m.Requests(t.Context(), "web-8080", false, func() {}, nil); httpjson.FromError(err).Code != localapi.CodeNotFound {
			t.Error(err)
		}
		if _, err := m.Stop(t.Context(), "web-8080"); httpjson.FromError(err).Code != localapi.CodeNotFound {
			t.Error(err)
		}
	})
}
