package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/client/localapi"
)

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// fakeList is a list of the API server that can be watched.
type fakeList struct {
	mu      sync.Mutex
	version int
	items   map[string]metav1.Object
	events  []fakeEvent
	changed chan struct{} // closed with the next change
	lists   int
	watches int
	// forgotten says that nobody may watch from an older version than that.
	forgotten int
	refuse    func(http.ResponseWriter, *http.Request) bool
}

type fakeEvent struct {
	version int
	kind    string
	object  []byte
}

func newFakeList(items ...metav1.Object) *fakeList {
	l := &fakeList{items: map[string]metav1.Object{}, changed: make(chan struct{})}
	for _, o := range items {
		l.put(o)
	}
	return l
}

// locked changes the list and wakes the watches.
func (l *fakeList) locked(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeList) put(o metav1.Object) {
	l.locked(func() {
		l.version++
		kind := "ADDED"
		if l.items[o.GetName()] != nil {
			kind = "MODIFIED"
		}
		o.SetResourceVersion(fmt.Sprint(l.version))
		l.items[o.GetName()] = o
		l.events = append(l.events, fakeEvent{l.version, kind, mustJSON(o)})
	})
}

func (l *fakeList) remove(name string) {
	l.locked(func() {
		l.version++
		l.items[name].SetResourceVersion(fmt.Sprint(l.version))
		l.events = append(l.events, fakeEvent{l.version, "DELETED", mustJSON(l.items[name])})
		delete(l.items, name)
	})
}

func (l *fakeList) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	refuse := l.refuse
	l.mu.Unlock()
	if refuse != nil && refuse(w, r) {
		return
	}
	if r.URL.Query().Get("watch") == "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lists++
		items := []any{}
		for _, o := range l.items {
			items = append(items, o)
		}
		reply(w, 200, map[string]any{"metadata": map[string]any{"resourceVersion": fmt.Sprint(l.version)}, "items": items})
		return
	}
	at := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("resourceVersion"), &at)
	l.mu.Lock()
	l.watches++
	l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{"metadata": map[string]any{"resourceVersion": fmt.Sprint(at)}}})
	for {
		l.mu.Lock()
		events, changed, forgotten := l.events, l.changed, l.forgotten
		l.mu.Unlock()
		if at < forgotten {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": metav1.Status{Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"}})
			return
		}
		for _, e := range events {
			if e.version > at {
				at = e.version
				_ = json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": json.RawMessage(e.object)})
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (l *fakeList) counts() (lists, watches int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lists, l.watches
}

// await reads sets until one is as wanted.
func await(t *testing.T, sets <-chan PodSet, what string, ok func(PodSet) bool) PodSet {
	t.Helper()
	late := time.After(10 * time.Second)
	var last PodSet
	for {
		select {
		case s, open := <-sets:
			if !open {
				t.Fatalf("the watch ended before: %s", what)
			}
			if last = s; ok(s) {
				return s
			}
		case <-late:
			t.Fatalf("no set with %s; the last has %s, %v", what, names(last), last.Err)
		}
	}
}

// having awaits a set with exactly these pods.
func having(t *testing.T, sets <-chan PodSet, want string) PodSet {
	t.Helper()
	return await(t, sets, want, func(s PodSet) bool { return names(s) == want && s.Err == nil })
}

func names(s PodSet) string {
	var all []string
	for _, p := range s.Pods {
		all = append(all, p.Name)
	}
	return strings.Join(all, " ")
}

const podList = "GET /api/v1/namespaces/shop/pods"

func TestWatchADeployment(t *testing.T) {
	f := newFakeAPI(t)
	deploys := newFakeList(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid-web"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}})
	pods := newFakeList(aPod("web-1", ownedBy("ReplicaSet", "web-a", "a")), aPod("other"))
	f.on["GET /apis/apps/v1/namespaces/shop/deployments"] = func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("fieldSelector"); got != "metadata.name=web" {
			t.Errorf("deployments are asked for by %q", got)
		}
		deploys.ServeHTTP(w, r)
	}
	f.on[podList] = func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("labelSelector"); got != "app=web" {
			t.Errorf("pods are asked for by %q", got)
		}
		pods.ServeHTTP(w, r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sets, err := f.client().WatchPods(ctx, "shop", Target{Kind: "deploy", Name: "web"}, "http")
	if err != nil {
		t.Fatal(err)
	}
	if s := having(t, sets, "web-1"); s.Port["uid-web-1"] != 8080 {
		t.Errorf("ports %v", s.Port)
	}
	pods.put(aPod("web-2", ownedBy("ReplicaSet", "web-b", "b")))
	having(t, sets, "web-1 web-2")
	pods.put(aPod("web-1", ownedBy("ReplicaSet", "web-a", "a"), dying))
	await(t, sets, "a dying pod", func(s PodSet) bool { return names(s) == "web-1 web-2" && s.Pods[0].Terminating })
	pods.remove("web-1")
	having(t, sets, "web-2")
	deploys.remove("web")
	await(t, sets, "no deployment", func(s PodSet) bool { var none *NoTargetError; return errors.As(s.Err, &none) && len(s.Pods) == 0 })
	if lists, _ := pods.counts(); lists != 1 {
		t.Errorf("the pods were listed %d times, want once", lists)
	}
	cancel()
	if _, open := <-sets; open {
		t.Error("the channel stays open")
	}
}

// TestWatchListsAgain: after anything that may have hidden a change, all is
// read anew.
func TestWatchListsAgain(t *testing.T) {
	f := newFakeAPI(t)
	pods := newFakeList(aPod("web-0"))
	f.on[podList] = pods.ServeHTTP
	c := f.client()
	sets, err := c.WatchPods(t.Context(), "shop", Target{Selector: "app=web"}, "8080")
	if err != nil {
		t.Fatal(err)
	}
	having(t, sets, "web-0")

	// The API server has forgotten what came before.
	pods.locked(func() {
		pods.version += 10
		pods.forgotten = pods.version
		pods.items["web-1"] = aPod("web-1") // nobody was told
	})
	having(t, sets, "web-0 web-1")

	// Connections break, and it is away for a while.
	pods.locked(func() {
		pods.items["web-2"] = aPod("web-2")
		pods.refuse = func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, 503, metav1.StatusReasonServiceUnavailable, "starting")
			return true
		}
	})
	c.Redial()
	s := await(t, sets, "an error", func(s PodSet) bool { return s.Err != nil })
	explained(t, s.Err, localapi.CodeUnreachable)
	if names(s) != "web-0 web-1" {
		t.Errorf("what was known is lost: %s", names(s))
	}
	pods.locked(func() { pods.refuse = nil })
	having(t, sets, "web-0 web-1 web-2")
}

// TestWatchThatMayNotWatch asks again and again instead.
func TestWatchThatMayNotWatch(t *testing.T) {
	f := newFakeAPI(t)
	pods := newFakeList(aPod("web-0"))
	pods.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		refuse(w, 403, metav1.StatusReasonForbidden, "no watching")
		return true
	}
	f.on[podList] = pods.ServeHTTP
	sets, err := f.client().WatchPods(t.Context(), "shop", Target{Selector: "app=web"}, "8080")
	if err != nil {
		t.Fatal(err)
	}
	having(t, sets, "web-0")
	pods.put(aPod("web-1"))
	having(t, sets, "web-0 web-1")
}

func TestWatchAServiceWhoseSelectorChanges(t *testing.T) {
	f := newFakeAPI(t)
	web := func(app string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid-svc"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": app}, ClusterIP: "10.96.0.1",
			Ports: []corev1.ServicePort{{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}}}}
	}
	services := newFakeList(web("web"))
	blue, green := newFakeList(aPod("blue")), newFakeList(aPod("green"))
	f.on["GET /api/v1/namespaces/shop/services"] = services.ServeHTTP
	f.on[podList] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("labelSelector") == "app=web" {
			blue.ServeHTTP(w, r)
		} else {
			green.ServeHTTP(w, r)
		}
	}
	sets, err := f.client().WatchPods(t.Context(), "shop", Target{Kind: "svc", Name: "web"}, "80")
	if err != nil {
		t.Fatal(err)
	}
	if s := having(t, sets, "blue"); s.Port["uid-blue"] != 8080 {
		t.Errorf("ports %v", s.Port)
	}
	services.put(web("green"))
	having(t, sets, "green")
	changed := web("green")
	changed.Spec.Ports[0].Port = 81
	services.put(changed)
	await(t, sets, "no port", func(s PodSet) bool { var none *NoPortError; return errors.As(s.Err, &none) })
}

// TestWatchAPodThatComesAgain: a StatefulSet gives a new pod the old name.
func TestWatchAPodThatComesAgain(t *testing.T) {
	f := newFakeAPI(t)
	pods := newFakeList(aPod("db-0"))
	f.on[podList] = pods.ServeHTTP
	sets, err := f.client().WatchPods(t.Context(), "shop", Target{Kind: "pod", Name: "db-0"}, "5432")
	if err != nil {
		t.Fatal(err)
	}
	having(t, sets, "db-0")
	pods.remove("db-0")
	await(t, sets, "nothing", func(s PodSet) bool { return s.Err != nil })
	pods.put(aPod("db-0", func(p *corev1.Pod) { p.UID = "second" }))
	if s := having(t, sets, "db-0"); s.Pods[0].UID != "second" {
		t.Errorf("pod %s", s.Pods[0].UID)
	}
}

func TestWatchRefusedAtOnce(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	watch := func(target Target, port string) error {
		sets, err := c.WatchPods(t.Context(), "shop", target, port)
		if sets != nil {
			t.Error("a channel and an error")
		}
		return err
	}
	f.on["GET /apis/apps/v1/namespaces/shop/deployments"] = newFakeList().ServeHTTP
	f.on["GET /api/v1/namespaces/shop/services"] = newFakeList(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}}).ServeHTTP
	f.on[podList] = newFakeList().ServeHTTP
	explained(t, watch(Target{Kind: "deploy", Name: "web"}, "80"), localapi.CodeUsage, "no deploy/web", "get deployments")
	explained(t, watch(Target{Kind: "pod", Name: "web"}, "80"), localapi.CodeUsage, "no pod/web")
	explained(t, watch(Target{Kind: "svc", Name: "web"}, "80"), localapi.CodeUsage, "svc/web has no selector")
	explained(t, watch(Target{Kind: "svc", Name: "web"}, "99999"), localapi.CodeUsage, "no port")
	f.on[podList] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "no")
	}
	explained(t, watch(Target{Selector: "app=web"}, "80"), localapi.CodeForbidden, "alice may not list pods in namespace shop", "--clusterrole=podnet-steer --user=alice")
	f.Close()
	explained(t, watch(Target{Selector: "app=web"}, "80"), localapi.CodeUnreachable)
}
