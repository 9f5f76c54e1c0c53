package steering

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// sendAs asks to send from a target's pod until the context that it returns ends.
func sendAs(m *Manager, target string) (stop func() error, said func() []string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var lines []string
	go func() {
		done <- m.As(ctx, localapi.AsRequest{Target: target}, func(e localapi.SteerEvent) { lines = append(lines, e.Text) })
	}()
	return func() error { cancel(); return <-done }, func() []string { synctest.Wait(); return lines }
}

// egress are the objects by which we send.
func (w *world) egress() (out []v1alpha1.SteeringRuleSpec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.objects {
		if o.Spec.Mode == v1alpha1.SteeringEgress {
			out = append(out, o.Spec)
		}
	}
	return out
}

// TestSendFromAPod: from the oldest that is ready, until it goes, then from the next;
// never from nowhere in between if that can be helped.
func TestSendFromAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1", "web-2", "web-3")
		w.pods["uid-web-1"].Ready = false
		w.pods["uid-web-2"].Created, w.pods["uid-web-3"].Created = time.Unix(20, 0), time.Unix(10, 0)
		m, stop := w.manager()
		if m.Identity() != nil || m.Sending() != FromGateway {
			t.Errorf("%+v, %v before anything", m.Identity(), m.Sending())
		}
		end, said := sendAs(m, "deployment/web")
		pass(time.Second)
		if text := strings.Join(said(), "; "); !strings.HasSuffix(text, "what this machine sends leaves from pod web-3") {
			t.Errorf("said %s", text)
		}
		all := w.egress()
		if len(all) != 1 || all[0].Pod != "web-3" || all[0].PodUID != "uid-web-3" || all[0].Port != 0 || all[0].RelayPort != 0 || all[0].Local != "" || all[0].AgentKey == "" ||
			all[0].Protocol != "tcp" || all[0].Target != "deploy/web" || all[0].Rule != "as-web" || len(w.rules) != 0 || w.count("sender web-3") != 1 {
			t.Errorf("%+v, relayed %v, %v", all, w.rules, w.calls)
		}
		if as := m.Identity(); as == nil || as.Pod != "web-3" || as.Target != "deploy/web" || as.Namespace != "shop" || m.Sending() != FromPod {
			t.Errorf("%+v, %v", as, m.Sending())
		}
		if rules := m.List(); len(rules) != 0 {
			t.Errorf("listed as steering: %+v", rules)
		}
		if names, err := m.Stop(t.Context(), ""); err != nil || len(names) != 0 || len(w.egress()) != 1 {
			t.Errorf("stopped %v, %v", names, err)
		}
		all2, err := m.Everybodys(t.Context(), "shop")
		if err != nil || len(all2) != 1 || all2[0].Mode != localapi.ModeEgress || all2[0].Port != "" || all2[0].Ready != 1 {
			t.Errorf("everybody's: %+v, %v", all2, err)
		}

		w.with(func() { w.pods["uid-web-3"].Ready = false; w.tellLocked() }) // it stays
		pass(time.Second)
		if m.Identity().Pod != "web-3" {
			t.Errorf("left %+v", w.egress())
		}
		w.with(func() { w.silent, w.pods["uid-web-3"].Terminating = true, true; w.tellLocked() })
		pass(time.Second)
		if all := w.egress(); len(all) != 2 {
			t.Errorf("the rule of the pod that goes is not kept until the next is ready: %+v", all)
		}
		w.with(func() { w.silent = false })
		pass(time.Second)
		if all := w.egress(); len(all) != 1 || all[0].Pod != "web-2" || m.Sending() != FromPod {
			t.Errorf("%+v, %v", all, m.Sending())
		}
		w.remove("web-2")
		pass(10 * time.Second)
		if as := m.Identity(); m.Sending() != FromNowhere || as.Pod != "" || as.Text != "deploy/web has no pod that is ready" {
			t.Errorf("without a pod: %v, %+v", m.Sending(), as)
		}
		w.with(func() { w.pods["uid-web-1"].Ready = true; w.tellLocked() })
		pass(time.Second)
		if m.Sending() != FromPod || m.Identity().Pod != "web-1" {
			t.Errorf("with a pod again: %v, %+v", m.Sending(), m.Identity())
		}
		m.SetMember(Member{Peer: "u2", Gateways: []v1alpha1.Gateway{{PublicKey: "g1", ClusterEndpoints: []string{"10.0.0.1:51820"}}}})
		if m.Sending() != FromNowhere {
			t.Error("another Peer sends before its rule is there")
		}
		pass(time.Second)
		if all := w.egress(); m.Sending() != FromPod || len(all) != 1 || all[0].Peer != "u2" {
			t.Errorf("another Peer: %v, %+v", m.Sending(), all)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(w.egress()) != 0 || m.Identity() != nil || m.Sending() != FromGateway {
			t.Errorf("left %+v, %+v", w.egress(), m.Identity())
		}
		stop()
	})
}

// TestOneIdentity: a machine has one, but several may ask for it.
func TestOneIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		first, _ := sendAs(m, "deploy/web")
		pass(time.Second)
		err := m.As(t.Context(), localapi.AsRequest{Target: "sts/db"}, func(localapi.SteerEvent) {})
		if e := httpjson.FromError(err); e.Code != localapi.CodeConflict || !strings.Contains(e.Message, "deploy/web") {
			t.Errorf("another: %v", err)
		}
		second, _ := sendAs(m, "deploy/web")
		pass(time.Second)
		if all := w.egress(); len(all) != 2 || w.count("inject") != 1 {
			t.Errorf("%+v, %v", all, w.calls)
		}
		if err := first(); err != nil {
			t.Error(err)
		}
		pass(time.Second)
		if all := w.egress(); len(all) != 1 || all[0].Rule != "as-web-2" || m.Sending() != FromPod {
			t.Errorf("the second: %+v, %v", all, m.Sending())
		}
		if names, err := m.Stop(t.Context(), "as-web-2"); err != nil || !slices.Equal(names, []string{"as-web-2"}) || m.Sending() != FromGateway {
			t.Errorf("%v, %v", names, err)
		}
		synctest.Wait()
		if err := second(); err == nil || httpjson.FromError(err).Code != localapi.CodeCanceled {
			t.Error(err)
		}
	})
}

// TestNoIdentity: what cannot be leaves nothing, and everything as it was.
func TestNoIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*world)
		target string
		code   string
	}{
		"refused":  {func(w *world) { w.refuse = &cluster.RefusedError{ByNature: true} }, "deploy/web", localapi.CodeForbidden},
		"unready":  {func(w *world) { w.pods["uid-web-1"].Ready = false }, "deploy/web", localapi.CodeNotFound},
		"no kind":  {func(*world) {}, "node/x", localapi.CodeUsage},
		"a word":   {func(*world) {}, "web", localapi.CodeUsage},
		"in vain":  {func(w *world) { w.silent = true }, "deploy/web", localapi.CodeTimeout},
		"no agent": {func(w *world) { w.hello = "no network" }, "deploy/web", localapi.CodeDeploy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web-1")
				w.services = []string{"web"}
				c.spoil(w)
				m, stop := w.manager()
				defer stop()
				err := m.As(t.Context(), localapi.AsRequest{Target: c.target}, func(e localapi.SteerEvent) {
					if e.Type == localapi.SteerInstead {
						t.Error("a Service is no pod to send from")
					}
				})
				synctest.Wait()
				if e := httpjson.FromError(err); err == nil || e.Code != c.code {
					t.Errorf("%v (%+v)", err, e)
				}
				if len(w.objects) != 0 || m.Identity() != nil || m.Sending() != FromGateway {
					t.Errorf("left %v, %+v", w.objects, m.Identity())
				}
			})
		})
	}
}

// TestSenderIsRevoked: whoever asked for it is told.
func TestSenderIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1")
		m, stop := w.manager()
		defer stop()
		end, _ := sendAs(m, "deploy/web")
		pass(time.Second)
		if _, err := m.Revoke(t.Context(), "shop", "as-web"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if err := end(); err == nil || httpjson.FromError(err).Code != localapi.CodeEnded {
			t.Error(err)
		}
	})
}

// TestAgentsOfAPod: whoever sends takes any agent; whoever takes needs one that can,
// and a second is put into the pod.
func TestAgentsOfAPod(t *testing.T) {
	for name, c := range map[string]struct {
		first, second func(*Manager, *testing.T)
		agents        int
	}{
		"take, then send": {take, give, 1},
		"send, then take": {give, take, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web-1")
				m, stop := w.manager()
				c.first(m, t)
				pass(time.Second)
				c.second(m, t)
				pass(time.Second)
				if n := w.count("inject"); n != c.agents || m.Sending() != FromPod || m.List()[0].Ready != 1 {
					t.Errorf("%d agents, %v, %+v", n, m.Sending(), m.List())
				}
				w.kill("web-1")
				pass(time.Second)
				if m.Sending() == FromGateway || m.List()[0].Ready != 1 {
					t.Errorf("after the end of the agents: %v, %+v", m.Sending(), m.List())
				}
				pass(10 * time.Second)
				if m.Sending() != FromPod {
					t.Errorf("no agent sends again: %+v", m.Identity())
				}
				stop()
				if len(w.objects) != 0 {
					t.Errorf("left %v", w.objects)
				}
			})
		})
	}
}

func take(m *Manager, t *testing.T) {
	if _, err := steerIn(t.Context(), m, request8080); err != nil {
		t.Error(err)
	}
}

func give(m *Manager, t *testing.T) { sendAs(m, "deploy/web") }
