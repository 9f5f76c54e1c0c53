package exposing

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/key"
)

const (
	lease      = 300 * time.Second
	gatewayKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

var my = localapi.ExposeRequest{Name: "my-api", Local: "3000"}

// exposeIn asks for an exposure and returns the types of the events.
func exposeIn(ctx context.Context, m *Manager, req localapi.ExposeRequest) (types []localapi.ExposeEventType, err error) {
	err = m.Expose(ctx, req, func(e localapi.ExposeEvent) { types = append(types, e.Type) })
	return types, err
}

// pass lets time pass, and what is to be done in it be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestExpose: from nothing to a name that leads here, and back to nothing.
func TestExpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, stop := w.manager()
		types, err := exposeIn(t.Context(), m, my)
		if want := []localapi.ExposeEventType{localapi.ExposeAdmitted, localapi.ExposeReady}; err != nil || !slices.Equal(types, want) {
			t.Fatalf("%v: %v", err, types)
		}
		o := w.objects["shop/my-api"]
		want := v1alpha1.ExposureSpec{User: "alice", Peer: "u1", Renew: 1, Local: "3000",
			Ports: []v1alpha1.ExposurePort{{Port: 80, Protocol: "tcp", RelayPort: 20000}, {Port: 3000, Protocol: "tcp", RelayPort: 20000}}}
		if o == nil || !reflect.DeepEqual(o.Spec, want) {
			t.Fatalf("wrote %+v", o)
		}
		k, err := key.ParsePublic(gatewayKey)
		if err != nil {
			t.Fatal(err)
		}
		if e := w.exposed; len(e) != 1 || e[0].Name != "shop/my-api" || e[0].Port != 20000 || e[0].Local != "3000" || len(e[0].Gateways) != 1 || e[0].Gateways[0] != k.Address6() {
			t.Errorf("the relay lets in %+v", e)
		}
		if w.names["shop/my-api"] != o.Status.Host {
			t.Errorf("the name leads to %v", w.names)
		}
		list := m.List()
		if len(list) != 1 || list[0].State != localapi.ExposeStateReady || list[0].Connections != 3 || list[0].Failed != 1 || list[0].Owner != "alice" || !slices.Equal(list[0].Ports, []uint16{80, 3000}) {
			t.Errorf("%+v", list)
		}
		m.Renew()
		pass(time.Second)
		if n := w.count("renew"); n != 1 {
			t.Errorf("%d renewals", n)
		}
		before := w.count("point")
		pass(check + time.Second)
		if n := w.count("point"); n != before+1 {
			t.Errorf("the Service was looked at %d times", n-before)
		}
		// The same again is the same; another of the name is not.
		if _, err := exposeIn(t.Context(), m, my); err != nil || w.count("create") != 1 {
			t.Errorf("%v, %d objects written", err, w.count("create"))
		}
		other := my
		other.Local = "4000"
		if _, err := exposeIn(t.Context(), m, other); httpjson.FromError(err).Code != localapi.CodeConflict {
			t.Errorf("another one of the name: %v", err)
		}
		elsewhere := my
		elsewhere.Namespace = "pay"
		if _, err := exposeIn(t.Context(), m, elsewhere); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Stop(t.Context(), "", "my-api"); httpjson.FromError(err).Code != localapi.CodeConflict {
			t.Errorf("one of two: %v", err)
		}
		if names, err := m.Stop(t.Context(), "pay", "my-api"); err != nil || !slices.Equal(names, []string{"pay/my-api"}) || w.objects["pay/my-api"] != nil {
			t.Errorf("stopped %v, %v", names, err)
		}
		if _, err := m.Stop(t.Context(), "", "other"); httpjson.FromError(err).Code != localapi.CodeNotFound {
			t.Errorf("what is not there: %v", err)
		}
		stop()
		if len(w.objects) != 0 || len(w.names) != 0 || len(w.exposed) != 0 {
			t.Errorf("left %v, %v, %v", w.objects, w.names, w.exposed)
		}
	})
}

// TestNothingIsLeft where somebody says no.
func TestNothingIsLeft(t *testing.T) {
	no := func(reason, text string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: text}
	}
	bobs := &v1alpha1.Exposure{Spec: v1alpha1.ExposureSpec{User: "bob", Peer: "u9"}}
	bobs.Namespace, bobs.Name, bobs.UID = "shop", "my-api", "bobs"
	mine := bobs.DeepCopy()
	mine.Spec.User = "alice"
	for name, c := range map[string]struct {
		spoil      func(*world)
		code, says string
		left       int
	}{
		"a Service of that name": {func(w *world) { w.taken = &localapi.Error{Code: localapi.CodeConflict, Message: "not podnet's"} }, localapi.CodeConflict, "not podnet's", 0},
		"admission":              {func(w *world) { w.deny = &localapi.Error{Code: localapi.CodeForbidden, Message: "may not"} }, localapi.CodeForbidden, "may not", 0},
		"a limit":                {func(w *world) { w.verdict = no(v1alpha1.ReasonLimitReached, "32 are enough") }, localapi.CodeForbidden, "32 are enough", 0},
		"an invalid one":         {func(w *world) { w.verdict = no(v1alpha1.ReasonInvalid, "no such port") }, localapi.CodeUsage, "no such port", 0},
		"no policies":            {func(w *world) { w.verdict = no(v1alpha1.ReasonPolicyMissing, "gone") }, localapi.CodeForbidden, "gone", 0},
		"somebody else":          {func(w *world) { w.objects["shop/my-api"] = bobs.DeepCopy() }, localapi.CodeConflict, "bob exposes my-api", 1},
		"another session":        {func(w *world) { w.objects["shop/my-api"] = mine.DeepCopy() }, localapi.CodeConflict, "another session of yours", 1},
		"silence":                {func(w *world) { w.silent = true }, localapi.CodeTimeout, "has not seen", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.spoil(w)
				m, stop := w.manager()
				defer stop()
				_, err := exposeIn(t.Context(), m, my)
				synctest.Wait()
				if e := httpjson.FromError(err); err == nil || e.Code != c.code || !strings.Contains(e.Message, c.says) || e.Code == localapi.CodeConflict && len(w.objects) == 1 && e.Hint == "" {
					t.Errorf("%v (%+v)", err, e)
				}
				if len(w.objects) != c.left || len(w.names) != 0 || len(w.exposed) != 0 || len(m.List()) != 0 {
					t.Errorf("left %v, %v, %v", w.objects, w.names, w.exposed)
				}
			})
		})
	}
}

// TestLeftoverIsReplaced: a session of ours was killed, its Peer is gone.
func TestLeftoverIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := &v1alpha1.Exposure{Spec: v1alpha1.ExposureSpec{User: "alice", Peer: "u0"}}
		old.Namespace, old.Name, old.UID = "shop", "my-api", "old"
		old.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonPeerMissing}}
		w.objects["shop/my-api"] = old
		m, stop := w.manager()
		defer stop()
		if _, err := exposeIn(t.Context(), m, my); err != nil {
			t.Fatal(err)
		}
		if o := w.objects["shop/my-api"]; o.UID == "old" || o.Spec.Peer != "u1" {
			t.Errorf("%+v", o)
		}
	})
}

// TestHeldExposure: it tells what happens, and ends with its caller.
func TestHeldExposure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, stop := w.manager()
		defer stop()
		held := my
		held.Hold = true
		ctx, hangUp := context.WithCancel(t.Context())
		var events []localapi.ExposeEvent
		over := make(chan error, 1)
		go func() {
			over <- m.Expose(ctx, held, func(e localapi.ExposeEvent) { events = append(events, e) })
		}()
		pass(time.Second)
		w.took(relay.Request{Rule: "shop/other"})
		w.took(relay.Request{Rule: "shop/my-api", Took: 12 * time.Millisecond, In: 5, Out: 7})
		pass(time.Second)
		w.with(func() { w.away = &cluster.UnreachableError{Server: "https://api", Err: errors.New("gone")} })
		pass(10 * time.Second)
		w.with(func() { w.away = nil })
		pass(10 * time.Second)
		hangUp()
		if err := <-over; err != nil {
			t.Errorf("it ended with %v", err)
		}
		var types []localapi.ExposeEventType
		for _, e := range events {
			types = append(types, e.Type)
		}
		want := []localapi.ExposeEventType{localapi.ExposeAdmitted, localapi.ExposeReady, localapi.ExposeConnection, localapi.ExposeChanged, localapi.ExposeChanged}
		if !slices.Equal(types, want) {
			t.Fatalf("told %v", types)
		}
		if c := events[2].Connection; c.Name != "my-api" || c.Namespace != "shop" || c.TookMs != 12 || c.In != 5 || c.Out != 7 {
			t.Errorf("%+v", c)
		}
		if events[3].Exposure.State != localapi.ExposeStateTrouble || !strings.Contains(events[3].Text, "cannot reach") || events[4].Exposure.State != localapi.ExposeStateReady {
			t.Errorf("%+v, %+v", events[3], events[4])
		}
		if len(w.objects) != 0 || len(w.names) != 0 || len(w.subs) != 0 {
			t.Errorf("left %v, %v", w.objects, w.names)
		}
	})
}

// TestExposureOutlivesItsPeer: the session enrols again with another key.
func TestExposureOutlivesItsPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, stop := w.manager()
		if _, err := exposeIn(t.Context(), m, my); err != nil {
			t.Fatal(err)
		}
		m.SetMember(Member{Peer: "u2"})
		pass(time.Second)
		o := w.objects["shop/my-api"]
		if o == nil || o.Spec.Peer != "u2" || o.UID != "uid-2" || w.names["shop/my-api"] != o.Status.Host || o.Spec.Ports[0].RelayPort != 20000 {
			t.Errorf("%+v, %v", o, w.names)
		}
		// Its lease ends while the laptop sleeps.
		time.Sleep(lease)
		w.with(func() { delete(w.objects, "shop/my-api") })
		pass(slowly + time.Second)
		if o := w.objects["shop/my-api"]; o == nil || o.UID != "uid-3" {
			t.Errorf("%+v", o)
		}
		stop()
		if len(w.objects) != 0 || len(w.names) != 0 {
			t.Errorf("left %v, %v", w.objects, w.names)
		}
	})
}

// TestRevoked: somebody has deleted the object.
func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, stop := w.manager()
		defer stop()
		held := my
		held.Hold = true
		over := make(chan error, 1)
		go func() { over <- m.Expose(t.Context(), held, func(localapi.ExposeEvent) {}) }()
		pass(time.Second)
		w.with(func() { delete(w.objects, "shop/my-api") })
		if err := <-over; httpjson.FromError(err).Code != localapi.CodeEnded {
			t.Errorf("it ended with %v", err)
		}
		pass(time.Minute)
		if len(w.objects) != 0 || len(w.exposed) != 0 {
			t.Errorf("written again: %v", w.objects)
		}
	})
}

func TestEverybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, stop := w.manager()
		defer stop()
		if _, err := exposeIn(t.Context(), m, my); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{"pay/a", "shop/a"} {
			o := &v1alpha1.Exposure{Spec: v1alpha1.ExposureSpec{User: "bob", Ports: []v1alpha1.ExposurePort{{Port: 53, Protocol: "udp"}}}}
			o.Namespace, o.Name, _ = strings.Cut(at, "/")
			w.objects[at] = o
		}
		for namespace, want := range map[string][]string{"": {"pay/a", "shop/a", "shop/my-api"}, "pay": {"pay/a"}} {
			list, err := m.Everybodys(t.Context(), namespace)
			var got []string
			for _, e := range list {
				got = append(got, e.Namespace+"/"+e.Name)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("in %q: %v, %v", namespace, got, err)
			}
		}
	})
}
