package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/helper"
	asked "podnet.dev/client/helper/remote"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/localapi"
	"podnet.dev/client/router"
	"podnet.dev/client/setup"
	"podnet.dev/internal/httpjson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster keeps alice's objects.
type fakeCluster struct {
	mu       sync.Mutex
	objects  map[string]int64 // "peer NS/NAME" or "access NS/NAME" to its renew
	denied   map[string]bool  // namespaces
	away     error
	checkErr error
	peer     v1alpha1.Peer
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{objects: map[string]int64{}, denied: map[string]bool{}}
}

func (f *fakeCluster) Check(context.Context) error { return f.checkErr }
func (f *fakeCluster) Whoami() cluster.Identity {
	return cluster.Identity{Context: "kind", Namespace: "shop", Server: "https://api", User: "alice"}
}
func (f *fakeCluster) Remotes() []netip.Addr                        { return nil }
func (f *fakeCluster) Namespaces(context.Context) ([]string, error) { return []string{"a", "b"}, nil }
func (f *fakeCluster) ServicesIn(context.Context, string, string) ([]localapi.Service, error) {
	return nil, nil
}

func (f *fakeCluster) write(key, namespace string, renew int64, create bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return f.away
	}
	if f.denied[namespace] {
		return &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: namespace}}
	}
	if _, ok := f.objects[key]; !ok && !create {
		return cluster.ErrGone
	}
	f.objects[key] = renew
	return nil
}

func (f *fakeCluster) remove(key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, key)
	return nil
}

func (f *fakeCluster) CreatePeer(_ context.Context, ns, name string, _ v1alpha1.PeerSpec) error {
	return f.write("peer "+ns+"/"+name, ns, 1, true)
}
func (f *fakeCluster) RenewPeer(_ context.Context, ns, name string, renew int64) error {
	return f.write("peer "+ns+"/"+name, ns, renew, false)
}
func (f *fakeCluster) SetCandidates(context.Context, string, string, []string) error { return nil }
func (f *fakeCluster) SetVirtual(context.Context, string, string, []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	return nil, errors.New("the gateway sleeps")
}
func (f *fakeCluster) Redial() {}
func (f *fakeCluster) DeletePeer(_ context.Context, ns, name string) error {
	return f.remove("peer " + ns + "/" + name)
}
func (f *fakeCluster) Peer(context.Context, string, string) (*v1alpha1.Peer, error) {
	return &f.peer, nil
}
func (f *fakeCluster) CreateAccess(_ context.Context, ns, name string, _ v1alpha1.AccessScope) error {
	return f.write("access "+ns+"/"+name, ns, 1, true)
}
func (f *fakeCluster) RenewAccess(_ context.Context, ns, name string, _ v1alpha1.AccessScope, renew int64) error {
	return f.write("access "+ns+"/"+name, ns, renew, false)
}
func (f *fakeCluster) DeleteAccess(_ context.Context, ns, name string) error {
	return f.remove("access " + ns + "/" + name)
}
func (f *fakeCluster) Await(context.Context, string, string, []string) (*v1alpha1.Peer, error) {
	return nil, errors.New("the gateway sleeps")
}
func (f *fakeCluster) DialPod(context.Context, string, string, uint16) (net.Conn, error) {
	return nil, errors.New("no stream")
}

// closer is a host that only counts how often it was given back.
type closer struct {
	helper.Session
	closed int
}

func (c *closer) Close() error { c.closed++; return nil }

func newTestSession(t *testing.T, f *fakeCluster, h *closer, namespaces ...string) (*Session, *[]localapi.Event) {
	var events []localapi.Event
	s := New(Config{
		Request:     localapi.ConnectRequest{Namespaces: namespaces, GatewayNamespace: "podnet-system", LeaseSeconds: 300, Path: PathAuto},
		Events:      func(e localapi.Event) { events = append(events, e) },
		OpenCluster: func(localapi.Kube) (Cluster, error) { return f, nil },
		OpenHelper:  func(context.Context, func(string)) (helper.Session, error) { return h, nil },
		StateDir:    t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	return s, &events
}

// TestFailureUndoesEverything fails in each of the first phases.
func TestFailureUndoesEverything(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*fakeCluster)
		phase  string
		says   string
		opened int
	}{
		"unknown to the API server": {func(f *fakeCluster) { f.checkErr = errors.New("who?") }, "auth", "who?", 0},
		"not allowed in pay":        {func(f *fakeCluster) { f.denied["pay"] = true }, "gateway", "alice may not create pods/portforward in namespace pay", 1},
		"no answer":                 {func(*fakeCluster) {}, "gateway", "the gateway sleeps", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := newFakeCluster(), &closer{}
			c.break_(f)
			s, events := newTestSession(t, f, h, "shop", "pay")
			err := s.Run(t.Context())
			e := httpjson.FromError(err)
			if err == nil || e.Phase != c.phase || !strings.Contains(e.Message, c.says) {
				t.Errorf("got %v in phase %s", err, e.Phase)
			}
			if len(f.objects) != 0 || h.closed != c.opened {
				t.Errorf("left %v, host closed %d times", f.objects, h.closed)
			}
			if _, err := os.Stat(filepath.Join(s.StateDir, "objects.json")); !os.IsNotExist(err) {
				t.Errorf("a note stays: %v", err)
			}
			if last := (*events)[len(*events)-1]; last.Type != localapi.EventPhase || string(last.Phase) != c.phase {
				t.Errorf("last event %+v", last)
			}
		})
	}
}

// newMembership is alice's in the fake cluster, in namespace shop.
func newMembership(t *testing.T, f *fakeCluster) *membership {
	return &membership{cluster: f, id: f.Whoami(), stateDir: t.TempDir(), notes: new(sync.Mutex), log: slog.New(slog.DiscardHandler),
		request: localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 300}}
}

// TestKilledSessionsObjectsAreDeleted: the next one finds the note.
func TestKilledSessionsObjectsAreDeleted(t *testing.T) {
	f := newFakeCluster()
	m := newMembership(t, f)
	if _, _, err := m.apply(t.Context(), m.accesses()); err != nil || len(f.objects) != 2 {
		t.Fatalf("%v, %v", err, f.objects)
	}
	// Killed here. A session elsewhere leaves them alone, one here does not.
	m.id.Server = "https://other"
	m.sweep(t.Context())
	if len(f.objects) != 2 {
		t.Errorf("another cluster's session deleted them")
	}
	m.id.Server = "https://api"
	m.sweep(t.Context())
	if len(f.objects) != 0 || len(m.noted()) != 0 {
		t.Errorf("left %v, noted %v", f.objects, m.noted())
	}
	if err := os.WriteFile(m.noteFile(), []byte("{garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.sweep(t.Context()) // and no harm done
}

// TestRefusedNamespaces: one of two is an answer, both are an error.
func TestRefusedNamespaces(t *testing.T) {
	f := newFakeCluster()
	m := newMembership(t, f)
	f.denied["pay"] = true
	to, refused, err := m.apply(t.Context(), []string{"shop", "pay"})
	if err != nil || len(refused) != 1 || refused["pay"] == nil || !slices.Equal(to.Accesses, []string{"shop"}) {
		t.Errorf("%v, %v, %v", to, refused, err)
	}
	f.denied["shop"] = true
	if _, _, err := m.apply(t.Context(), []string{"shop", "pay"}); !isOver(err) {
		t.Errorf("got %v, want a refusal", err)
	}
	f.denied = map[string]bool{}
	if err := m.leaveAll(t.Context()); err != nil || len(f.objects) != 0 || len(m.noted()) != 0 {
		t.Errorf("%v, left %v, noted %v", err, f.objects, m.noted())
	}
}

func TestRenewalAsksAgain(t *testing.T) {
	f := newFakeCluster()
	m := newMembership(t, f)
	to, _, err := m.apply(t.Context(), m.accesses())
	if err != nil {
		t.Fatal(err)
	}
	if over, err := m.renew(t.Context(), to.grant, 2); err != nil || over != nil {
		t.Fatal(over, err)
	}
	for key, renew := range f.objects {
		if renew != 2 {
			t.Errorf("%s was renewed to %d", key, renew)
		}
	}
	f.away = errors.New("connection refused")
	if over, err := m.renew(t.Context(), to.grant, 3); err == nil || isOver(err) || over != nil {
		t.Errorf("an API server that is away: %v, %v, want an error that is no answer", over, err)
	}
	f.away = nil
	f.denied["shop"] = true
	if over, err := m.renew(t.Context(), to.grant, 3); err != nil || !strings.Contains(fmt.Sprint(over["shop"]), "alice may not") {
		t.Errorf("permission gone: %v, %v", over, err)
	}
	if err := f.DeletePeer(t.Context(), "podnet-system", to.Peer); err != nil {
		t.Fatal(err)
	}
	if _, err := m.renew(t.Context(), to.grant, 4); !errors.Is(err, cluster.ErrGone) {
		t.Errorf("deleted by an admin: %v", err)
	}
}

func TestJitter(t *testing.T) {
	for range 1000 {
		if d := jitter(100 * time.Second); d < 90*time.Second || d > 110*time.Second {
			t.Fatalf("%v", d)
		}
	}
}

func status(edit func(*v1alpha1.PeerStatus)) *v1alpha1.Peer {
	p := &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: "u1"}, Status: v1alpha1.PeerStatus{
		Address4: "198.18.0.5", Address6: "fd70:6f64:6e65:7400::5",
		Gateways: []v1alpha1.Gateway{{Pod: "podnet-gateway-0"}},
		Network: &v1alpha1.Network{PodCIDRs: []string{"10.244.1.0/24", "10.244.0.0/16", "10.244.0.0/16", "fd00:10:244::/48"}, ServiceCIDRs: []string{"10.96.0.7/16"},
			DNSDomain: "cluster.local", DNSAddresses: []string{"198.18.0.1", "fd70:6f64:6e65:7400::1"}},
	}}
	if edit != nil {
		edit(&p.Status)
	}
	return p
}

func TestNetwork(t *testing.T) {
	n, err := parseNetwork(status(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(router.Strings(n.inside()), " "), "10.244.0.0/16 fd00:10:244::/48 10.96.0.0/16 198.18.0.1/32 fd70:6f64:6e65:7400::/64"; got != want {
		t.Errorf("inside is %s, want %s", got, want)
	}
	for name, edit := range map[string]func(*v1alpha1.PeerStatus){
		"no address":  func(s *v1alpha1.PeerStatus) { s.Address4, s.Address6 = "", "" },
		"bad address": func(s *v1alpha1.PeerStatus) { s.Address4 = "198.18.0.5/16" },
		"no network":  func(s *v1alpha1.PeerStatus) { s.Network = nil },
		"bad CIDR":    func(s *v1alpha1.PeerStatus) { s.Network.PodCIDRs = []string{"10.244.0.0"} },
		"bad DNS":     func(s *v1alpha1.PeerStatus) { s.Network.DNSAddresses = []string{"dns"} },
		"no DNS":      func(s *v1alpha1.PeerStatus) { s.Network.DNSAddresses = nil },

		"the router's address": func(s *v1alpha1.PeerStatus) { s.Address4 = "192.168.1.1" },
		"every address":        func(s *v1alpha1.PeerStatus) { s.Address4 = "0.0.0.0" },
		"loopback":             func(s *v1alpha1.PeerStatus) { s.Address4 = "127.0.0.53" },
		"a relay's address":    func(s *v1alpha1.PeerStatus) { s.Address6 = "fd70:6f64:6e65:7403::5" },
		"somebody's zone":      func(s *v1alpha1.PeerStatus) { s.Address6 = "fd70:6f64:6e65:7400::5%eth0" },
		"the world's resolver": func(s *v1alpha1.PeerStatus) { s.Network.DNSAddresses = []string{"198.18.0.1", "9.9.9.9"} },
		"the API server":       func(s *v1alpha1.PeerStatus) { s.Network.DNSAddresses = []string{"203.0.113.6"} },
		"all names":            func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "." },
		"half of the names":    func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "com" },
		"this machine's":       func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "localhost" },
		"addresses' names":     func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "in-addr.arpa" },
		"a line more":          func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "x.local\nnameserver 203.0.113.7" },
		"a terminal's":         func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "cluster.local\x1b[2J" },
	} {
		if _, err := parseNetwork(status(edit)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n, err := parseNetwork(status(func(s *v1alpha1.PeerStatus) { s.Network.DNSDomain = "K8s.example.com." })); err != nil || n.domain != "k8s.example.com" {
		t.Errorf("a zone of a company's: %q, %v", n.domain, err)
	}
	if n, err := parseNetwork(status(func(s *v1alpha1.PeerStatus) { s.Address4 = "" })); err != nil || len(n.own) != 1 {
		t.Errorf("IPv6 alone: %v, %v", n.own, err)
	}
}

// TestNeverRoutes keeps prefixes out of the tunnel, and not one address more.
func TestNeverRoutes(t *testing.T) {
	p := status(nil)
	p.Spec.AlsoRoutes, p.Spec.AlsoDomains = []string{"10.20.0.0/30"}, []string{"corp.internal"}
	n, err := parseNetwork(p)
	if err != nil || !slices.Equal(n.also, []string{"corp.internal"}) {
		t.Fatal(n, err)
	}
	for never, want := range map[string]string{
		"192.0.2.0/24":  "10.244.0.0/16 fd00:10:244::/48 10.96.0.0/16 10.20.0.0/30",
		"10.20.0.1/32":  "10.244.0.0/16 fd00:10:244::/48 10.96.0.0/16 10.20.0.0/32 10.20.0.2/31",
		"10.20.0.2/31":  "10.244.0.0/16 fd00:10:244::/48 10.96.0.0/16 10.20.0.0/31",
		"10.0.0.0/8":    "fd00:10:244::/48",
		"10.244.0.0/17": "10.244.128.0/17 fd00:10:244::/48 10.96.0.0/16 10.20.0.0/30",
		"fd00::/16":     "10.244.0.0/16 10.96.0.0/16 10.20.0.0/30",
	} {
		if got := strings.Join(router.Strings(n.without([]netip.Prefix{netip.MustParsePrefix(never)}).prefixes), " "); got != want {
			t.Errorf("without %s: %s, want %s", never, got, want)
		}
	}
}

func TestOnLinkAddressesAreNoClusterAnswers(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil || len(addrs) == 0 {
		t.Skip("this machine has no addresses")
	}
	var r resolver
	r.lookNear()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !r.onLink(p.Addr()) {
			t.Errorf("%s may be an answer", p)
		}
	}
	if r.onLink(netip.MustParseAddr("203.0.113.99")) {
		t.Error("an address that is nowhere near is forbidden")
	}
}

// TestCodesAgree holds the codes of the privileged half, which does not link
// localapi, to those of the API.
func TestCodesAgree(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&router.ConflictError{}, localapi.CodeConflict}, {&router.InvalidError{}, localapi.CodeConflict},
		{&helper.PrivilegeError{Err: os.ErrPermission}, localapi.CodePrivilege},
		{&wire.RefusedError{}, localapi.CodeConflict}, {&asked.Error{Trouble: wire.Trouble{Code: localapi.CodeConflict, Hint: "x"}}, localapi.CodeConflict},
		{&setup.InputError{Advice: "x"}, localapi.CodeUsage},
		{&helper.BusyError{}, localapi.CodeConflict}, {&helper.PortError{Err: os.ErrExist}, localapi.CodeConflict},
	} {
		if e := httpjson.FromError(fmt.Errorf("x: %w", c.err)); e.Code != c.want || e.Hint == "" {
			t.Errorf("%T: code %q, hint %q, want %q and a hint", c.err, e.Code, e.Hint, c.want)
		}
	}
}

func TestUndoGoesBackwards(t *testing.T) {
	var u undo
	var got []int
	for i := range 3 {
		u.add("step", func(context.Context) error {
			got = append(got, i)
			return errors.New("and goes on")
		})
	}
	u.run(t.Context(), slog.New(slog.DiscardHandler))
	u.run(t.Context(), slog.New(slog.DiscardHandler))
	if !slices.Equal(got, []int{2, 1, 0}) {
		t.Errorf("order %v", got)
	}
}
