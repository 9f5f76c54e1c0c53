package steering

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

var byService = localapi.SteerRequest{Target: "deploy/web", Port: "http", Local: "3000", Via: localapi.ViaService}

// TestSteerByService: one object for the Service, no agent in any pod, ready when
// the gateway says so, and the gateway's own agent is let in.
func TestSteerByService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "web-1", "web-2")
		w.services = []string{"shop-front"}
		m, stop := w.manager()
		var said []string
		done := make(chan error, 1)
		go func() {
			done <- m.Steer(t.Context(), byService, func(e localapi.SteerEvent) { said = append(said, e.Text) })
		}()
		pass(5 * time.Second)
		select {
		case err := <-done:
			t.Fatalf("ready before the gateway leads: %v", err)
		default:
		}
		if p := m.List()[0].Pods[0]; p.State != localapi.SteerPodWaiting || p.Text != "the Service's slices are on their way" {
			t.Errorf("meanwhile %+v", p)
		}
		w.with(func() { w.leading = true })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		r := m.List()[0]
		if r.Via != "service" || r.Ready != 1 || r.Pods[0].Name != "shop-front" || r.Pods[0].Port != 80 || r.Pods[0].Address != "10.96.0.7" || r.Matched != 5 {
			t.Errorf("%+v", r)
		}
		if text := strings.Join(said, "; "); text != "deploy/web in namespace shop: the Service itself; 1 rule written, and the gateway accepts them; the Service leads here" {
			t.Errorf("said %s", text)
		}
		for _, o := range w.objects {
			s := o.Spec
			if s.Via != v1alpha1.ViaService || s.Service != "shop-front" || s.ServiceUID != "uid-svc" || s.Pod != "" || s.PodUID != "" || s.Port != 80 || s.AgentKey != "" ||
				len(o.OwnerReferences) != 1 || o.OwnerReferences[0].Kind != "Service" || o.OwnerReferences[0].Name != "shop-front" || o.OwnerReferences[0].UID != "uid-svc" {
				t.Errorf("%+v", o)
			}
		}
		if agents := w.rules[0].Agents; len(agents) != 1 || agents[frontKey.Address6()].Object == "" {
			t.Errorf("the relay lets in %v", agents)
		}
		if n := w.count("dryrun") + w.count("inject") + w.count("hello") + w.count("key"); len(w.objects) != 1 || n != 0 {
			t.Errorf("%d objects, %d calls about agents: %v", len(w.objects), n, w.calls)
		}
		all, err := m.Everybodys(t.Context(), "shop")
		if err != nil || len(all) != 1 || all[0].Via != "service" || all[0].Pods[0].Name != "shop-front" || all[0].Ready != 1 {
			t.Errorf("everybody's: %+v, %v", all, err)
		}
		stop()
		if len(w.objects) != 0 {
			t.Errorf("left %v", w.objects)
		}
	})
}

func TestServiceThatCannotBeSteered(t *testing.T) {
	for name, c := range map[string]struct {
		services []string
		verdict  *metav1.Condition
		code     string
		says     string
	}{
		"none":    {nil, nil, localapi.CodeNotFound, "no Service leads"},
		"several": {[]string{"a", "b"}, nil, localapi.CodeUsage, "2 Services: a, b"},
		"refused": {[]string{"web"}, &metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonServiceRefused, Message: "svc/web is of type ExternalName"},
			localapi.CodeForbidden, "svc/web is of type ExternalName"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web-1")
				w.services = c.services
				if c.verdict != nil {
					w.verdict = *c.verdict
				}
				m, stop := w.manager()
				defer stop()
				_, err := steerIn(t.Context(), m, byService)
				synctest.Wait()
				if e := httpjson.FromError(err); err == nil || e.Code != c.code || !strings.Contains(e.Message, c.says) || e.Hint == "" {
					t.Errorf("%v (%+v)", err, e)
				}
				if len(w.objects) != 0 || len(m.List()) != 0 {
					t.Errorf("left %v", w.objects)
				}
			})
		})
	}
}

// TestInstead: where no agent is let in, and one Service leads to the pods, the
// caller hears of it.
func TestInstead(t *testing.T) {
	udp := request8080
	udp.Port = "8080/udp"
	for name, c := range map[string]struct {
		services []string
		refusal  *cluster.RefusedError
		req      localapi.SteerRequest
		want     string
	}{
		"one":                  {[]string{"web"}, &cluster.RefusedError{ByNature: true}, request8080, "web"},
		"two":                  {[]string{"a", "b"}, &cluster.RefusedError{ByNature: true}, request8080, ""},
		"none":                 {nil, &cluster.RefusedError{ByNature: true}, request8080, ""},
		"by UDP":               {[]string{"web"}, &cluster.RefusedError{ByNature: true}, udp, ""},
		"a permission is lost": {[]string{"web"}, &cluster.RefusedError{}, request8080, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web-1")
				w.services, w.refuse = c.services, c.refusal
				m, stop := w.manager()
				defer stop()
				service := ""
				err := m.Steer(t.Context(), c.req, func(e localapi.SteerEvent) {
					if e.Type == localapi.SteerInstead {
						service = e.Service
					}
				})
				if httpjson.FromError(err).Code != localapi.CodeForbidden || service != c.want {
					t.Errorf("%q instead, %v", service, err)
				}
			})
		})
	}
}
