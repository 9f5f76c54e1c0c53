package cluster

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/overview"
)

const (
	shopPod     = "/api/v1/namespaces/shop/pods/podnet-gateway-0"
	shopForward = shopPod + "/portforward"
	shopSet     = "/apis/apps/v1/namespaces/shop/statefulsets/podnet-gateway"
)

// counter is the desk of a gateway in namespace shop.
type counter struct {
	*fakeAPI
	mu      sync.Mutex
	peers   map[string]v1alpha1.PeerSpec
	forward int
	answer  func(desk.Call) *desk.Answer // nil: its own
}

func openCounter(t *testing.T) (*counter, *Namespaced) {
	c := &counter{fakeAPI: newFakeAPI(t), peers: map[string]v1alpha1.PeerSpec{}}
	c.on["GET "+shopPod] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{deploy.LabelMode: deploy.ModeNamespace}}})
	}
	c.forwardsTo(shopForward, true, c.serve)
	n, err := c.client().Namespaced(t.Context(), "shop")
	if err != nil || n == nil {
		t.Fatalf("%v, %v", n, err)
	}
	return c, n
}

func (c *counter) serve(port string, data io.ReadWriteCloser) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forward++
	if port != "51822" {
		return "nobody listens on " + port
	}
	var call desk.Call
	if err := desk.Read(data, &call); err != nil {
		return err.Error()
	}
	answer := &desk.Answer{Version: desk.Version}
	if err := call.Check(); err != nil {
		answer.Error = &desk.Error{Code: desk.CodeInvalid, Message: err.Error()}
	} else if c.answer != nil {
		answer = c.answer(call)
	} else if call.Verb == desk.Delete {
		delete(c.peers, call.Name)
	} else {
		c.peers[call.Name] = *call.Spec
		answer.Status = &v1alpha1.PeerStatus{Address4: "198.18.0.2", Gateways: []v1alpha1.Gateway{{Pod: "podnet-gateway-0"}}, Network: &v1alpha1.Network{DNSDomain: "cluster.local"},
			Virtual: call.Spec.Virtual, ObservedRenew: call.Spec.Renew, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}}}
	}
	_ = desk.Write(data, answer)
	return ""
}

func (c *counter) spec(name string) (v1alpha1.PeerSpec, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[name], c.forward
}

var aKey = v1alpha1.PeerSpec{PublicKey: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", LeaseSeconds: 60, Device: "laptop"}

func TestPeerOverPortForward(t *testing.T) {
	c, n := openCounter(t)
	ctx := t.Context()
	if err := n.CreatePeer(ctx, "shop", "p", aKey); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.spec("p"); s.User != "alice" || s.Renew != 1 || s.PublicKey != aKey.PublicKey {
		t.Errorf("told of %+v", s)
	}
	p, err := n.Await(ctx, "shop", "p", []string{"shop"})
	if err != nil || p.Name != "p" || p.Namespace != "shop" || p.Status.Address4 != "198.18.0.2" {
		t.Fatalf("%+v, %v", p, err)
	}
	_, before := c.spec("p")
	if err := n.RenewPeer(ctx, "shop", "p", 2); err != nil {
		t.Fatal(err)
	}
	// Each renewal is a port-forward, which the API server allows anew.
	if s, forwards := c.spec("p"); s.Renew != 2 || forwards != before+1 {
		t.Errorf("renewed to %d by %d port-forwards", s.Renew, forwards-before)
	}
	virtual := []v1alpha1.VirtualPrefix{{Real: "10.244.0.0/16", Virtual: "198.19.0.0/16"}}
	if p, err = n.SetVirtual(ctx, "shop", "p", virtual); err != nil || !slices.Equal(p.Status.Virtual, virtual) {
		t.Fatalf("%+v, %v", p, err)
	}
	// A gateway that has started anew is told all of it by whoever looks.
	c.mu.Lock()
	clear(c.peers)
	c.mu.Unlock()
	if _, err = n.Peer(ctx, "shop", "p"); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.spec("p"); s.Renew != 2 || !slices.Equal(s.Virtual, virtual) || s.PublicKey != aKey.PublicKey {
		t.Errorf("told of %+v", s)
	}
	if err := n.DeletePeer(ctx, "shop", "p"); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	left := len(c.peers)
	c.mu.Unlock()
	if left != 0 {
		t.Error("still there")
	}
	if _, err := n.Peer(ctx, "shop", "p"); !errors.Is(err, ErrGone) {
		t.Errorf("after it was deleted: %v", err)
	}
	if err := n.DeletePeer(ctx, "shop", "p"); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestOnlyItsOwnNamespace(t *testing.T) {
	_, n := openCounter(t)
	if err := n.CreateAccess(t.Context(), "shop", "p", v1alpha1.ScopeNamespace); err != nil {
		t.Error(err)
	}
	for ns, scope := range map[string]v1alpha1.AccessScope{"pay": v1alpha1.ScopeNamespace, "shop": v1alpha1.ScopeCluster} {
		var no *localapi.Error
		if err := n.CreateAccess(t.Context(), ns, "p", scope); !errors.As(err, &no) || no.Code != localapi.CodeForbidden || no.Hint == "" {
			t.Errorf("%s, %s: %v", ns, scope, err)
		}
	}
}

func TestPermissionThatIsTaken(t *testing.T) {
	c, n := openCounter(t)
	if err := n.CreatePeer(t.Context(), "shop", "p", aKey); err != nil {
		t.Fatal(err)
	}
	no := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, `pods "podnet-gateway-0" is forbidden: User "alice" cannot create resource "pods/portforward"`)
	}
	c.fakeAPI.mu.Lock()
	c.on["GET "+shopForward], c.on["POST "+shopForward] = no, no
	c.fakeAPI.mu.Unlock()
	var forbidden *ForbiddenError
	if err := n.RenewPeer(t.Context(), "shop", "p", 2); !errors.As(err, &forbidden) || !strings.Contains(forbidden.Ask, "--clusterrole=edit") {
		t.Errorf("%v", err)
	}
}

func TestGatewayThatIsGone(t *testing.T) {
	c, n := openCounter(t)
	none := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, metav1.StatusReasonNotFound, `pods "podnet-gateway-0" not found`)
	}
	gone := func() {
		c.fakeAPI.mu.Lock()
		defer c.fakeAPI.mu.Unlock()
		c.on["GET "+shopForward], c.on["POST "+shopForward] = none, none
		c.on["GET "+shopSet] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, appsv1.StatefulSet{}) }
	}
	if err := n.CreatePeer(t.Context(), "shop", "p", aKey); err != nil {
		t.Fatal(err)
	}
	gone()
	var missing *NotInstalledError
	if err := n.RenewPeer(t.Context(), "shop", "p", 2); !errors.As(err, &missing) {
		t.Errorf("a pod that is being replaced: %v", err)
	}
	c.fakeAPI.mu.Lock()
	delete(c.on, "GET "+shopSet)
	c.fakeAPI.mu.Unlock()
	if err := n.RenewPeer(t.Context(), "shop", "p", 3); !errors.Is(err, ErrGone) {
		t.Errorf("uninstalled: %v", err)
	}
	if err := n.DeletePeer(t.Context(), "shop", "p"); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	if err := n.CreatePeer(t.Context(), "shop", "q", aKey); !errors.As(err, &missing) {
		t.Errorf("none was ever there: %v", err)
	}
}

func TestWhatTheDeskSays(t *testing.T) {
	for name, c := range map[string]struct {
		answer *desk.Answer
		code   string
	}{
		"refused":         {&desk.Answer{Version: desk.Version, Error: &desk.Error{Code: desk.CodeFull, Message: "the gateway remembers\n500 peers already"}}, localapi.CodeForbidden},
		"another version": {&desk.Answer{Version: "desk/v9", Error: &desk.Error{Code: desk.CodeVersion, Message: "no"}}, localapi.CodeTooOld},
		"no version":      {&desk.Answer{}, localapi.CodeTooOld},
		"nothing":         {&desk.Answer{Version: desk.Version}, ""},
	} {
		f, n := openCounter(t)
		f.answer = func(desk.Call) *desk.Answer { return c.answer }
		err := n.CreatePeer(t.Context(), "shop", "p", aKey)
		var known *localapi.Error
		if err == nil || strings.Contains(err.Error(), "\n") || c.code != "" && (!errors.As(err, &known) || known.Code != c.code || known.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, n := openCounter(t)
	f.forwardsTo(shopForward, true, func(string, io.ReadWriteCloser) string { return "connection refused" })
	if err := n.CreatePeer(t.Context(), "shop", "p", aKey); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestWhichGatewaysAreOfOneNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		is     bool
	}{
		"one": {func(w http.ResponseWriter) {
			reply(w, 200, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{deploy.LabelMode: deploy.ModeNamespace}}})
		}, true},
		"the whole cluster's": {func(w http.ResponseWriter) { reply(w, 200, corev1.Pod{}) }, false},
		"none":                {func(w http.ResponseWriter) { refuse(w, 404, metav1.StatusReasonNotFound, "not found") }, false},
		"who may not look":    {func(w http.ResponseWriter) { refuse(w, 403, metav1.StatusReasonForbidden, "forbidden") }, true},
	} {
		f := newFakeAPI(t)
		f.on["GET "+shopPod] = func(w http.ResponseWriter, _ *http.Request) { c.answer(w) }
		if n, err := f.client().Namespaced(t.Context(), "shop"); err != nil || (n != nil) != c.is {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}

// TestAdministratorsOfNamespaceMode ask the gateway of one namespace for what only the
// whole cluster's has, and are told so in whichever way they come to it.
func TestAdministratorsOfNamespaceMode(t *testing.T) {
	forbid := func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }
	has := func(v any) http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, v) } }
	const cannot = "the gateway of namespace shop cannot "
	for name, c := range map[string]struct {
		namespace string
		change    func(*fakeAPI)
		top, end  string
		code      string
	}{
		"its namespace is named": {"shop", func(*fakeAPI) {}, cannot + "say who is connected", cannot + "end somebody's sessions", localapi.CodeNotInstalled},
		"it is the kubeconfig's": {"podnet-system", func(*fakeAPI) {}, cannot + "say who is connected", cannot + "end somebody's sessions", localapi.CodeNotInstalled},
		"the namespace is closed to us": {"podnet-system", func(f *fakeAPI) {
			for _, call := range []string{"GET /api/v1/namespaces/podnet-system/pods/podnet-gateway-0/exec", "POST /api/v1/namespaces/podnet-system/pods/podnet-gateway-0/exec", "GET " + peerPath("podnet-system", "")} {
				f.on[call] = forbid
			}
		}, cannot + "say who is connected", cannot + "end somebody's sessions", localapi.CodeNotInstalled},
		"the cluster knows Peers": {"shop", func(f *fakeAPI) {
			f.on["GET "+api], f.on["GET "+peerPath("shop", "")] = has(struct{}{}), has(v1alpha1.PeerList{})
		}, cannot + "say who is connected", cannot + "end somebody's sessions", localapi.CodeNotInstalled},
		"there is none": {"podnet-system", func(f *fakeAPI) { delete(f.on, "GET "+shopPod) }, "podnet is not installed", "podnet is not installed", localapi.CodeNotInstalled},
		"the whole cluster's is not ours": {"podnet-system", func(f *fakeAPI) {
			f.on["GET "+api] = has(struct{}{})
			for _, call := range []string{"GET /api/v1/namespaces/podnet-system/pods/podnet-gateway-0/exec", "POST /api/v1/namespaces/podnet-system/pods/podnet-gateway-0/exec", "GET " + peerPath("podnet-system", "")} {
				f.on[call] = forbid
			}
		}, "alice may not create pods/exec", "alice may not list peers", localapi.CodeForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := openCounter(t)
			c.change(f.fakeAPI)
			admin := f.client()
			top := admin.Overviews(t.Context(), c.namespace, 0, func([]overview.Gateway) error { return nil })
			_, end := admin.Revoke(t.Context(), c.namespace, "bob")
			for want, err := range map[string]error{"top: " + c.top: top, "end: " + c.end: end} {
				e := httpjson.FromError(err)
				if _, text, _ := strings.Cut(want, ": "); err == nil || !strings.Contains(e.Message, text) || e.Code != c.code || e.Hint == "" {
					t.Errorf("%+v, want %s", e, want)
				}
			}
		})
	}
}
