package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster is a cluster whose gateway is a Bind of the test's.
type fakeCluster struct {
	t       *testing.T
	private key.Private
	bind    *transport.Bind
	port    uint16
	streams net.Listener
	network v1alpha1.Network
	refuse  error

	mu    sync.Mutex
	peers map[string]v1alpha1.PeerSpec
	all   []string // peers that ever were
}

func newFakeCluster(t *testing.T) *fakeCluster {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	c := &fakeCluster{t: t, private: private, bind: transport.NewBind(transport.Options{}), peers: map[string]v1alpha1.PeerSpec{},
		network: v1alpha1.Network{PodCIDRs: []string{"203.0.113.0/24"}, ServiceCIDRs: []string{"198.51.100.0/24"}}}
	var stop func()
	if c.port, stop, err = open(c.bind); err != nil {
		t.Fatal(err)
	}
	if c.streams, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = c.bind.ServeStreams(ctx, c.streams) }()
	t.Cleanup(func() { cancel(); _ = c.streams.Close(); <-served; stop() })
	return c
}

func (c *fakeCluster) Check(context.Context) error { return nil }
func (c *fakeCluster) Whoami() cluster.Identity {
	return cluster.Identity{Context: "dev", Namespace: "shop", Server: "https://api.example", User: "alice"}
}
func (c *fakeCluster) Remotes() []netip.Addr { return nil }
func (c *fakeCluster) Reach(context.Context) cluster.Reach {
	return cluster.Reach{Host: "api.example", Version: "v1.34.0"}
}
func (c *fakeCluster) Installed(context.Context, string) error { return nil }
func (c *fakeCluster) Needs(_ context.Context, gateway string, namespaces []string) []cluster.Need {
	return []cluster.Need{{Permission: cluster.Permission{Verb: "create", Resource: "peers", Namespace: gateway}, Allowed: true}}
}
func (c *fakeCluster) GatewayPod(context.Context, string) (cluster.GatewayPod, error) {
	return cluster.GatewayPod{Name: "gw-0", Ready: true}, nil
}
func (c *fakeCluster) PodSecurity(context.Context, string) (string, error) { return "restricted", nil }

func (c *fakeCluster) CreatePeer(_ context.Context, _, name string, spec v1alpha1.PeerSpec) error {
	if c.refuse != nil {
		return c.refuse
	}
	pub, err := key.ParsePublic(spec.PublicKey)
	if err != nil {
		return err
	}
	k, err := probe.NewKey(c.private, pub)
	if err != nil {
		return err
	}
	c.bind.Answer([]probe.Key{k})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers[name] = spec
	c.all = append(c.all, name)
	return nil
}

func (c *fakeCluster) SetCandidates(context.Context, string, string, []string) error { return nil }

func (c *fakeCluster) DeletePeer(_ context.Context, _, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.peers, name)
	return nil
}

func (c *fakeCluster) Await(context.Context, string, string, []string) (*v1alpha1.Peer, error) {
	return &v1alpha1.Peer{Status: v1alpha1.PeerStatus{Network: &c.network, Gateways: []v1alpha1.Gateway{{
		Pod: "gw-0", PublicKey: c.private.Public().String(), StreamPort: 51821,
		Endpoints: []string{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.port).String()},
	}}}}, nil
}

func (c *fakeCluster) DialPod(ctx context.Context, _, pod string, port uint16) (net.Conn, error) {
	if pod != "gw-0" || port != 51821 {
		c.t.Errorf("dialled %s:%d", pod, port)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.streams.Addr().String())
}

func (c *fakeCluster) examine(status localapi.Status) (texts map[string]string) {
	c.t.Helper()
	texts = map[string]string{}
	err := Run(c.t.Context(), Config{Request: localapi.DoctorRequest{}, Log: slog.New(slog.DiscardHandler),
		OpenCluster: func(localapi.Kube) (Cluster, error) { return c, nil }, Status: func() localapi.Status { return status },
	}, func(f localapi.Finding) { texts[f.Check] = string(f.Result) + ": " + f.Text })
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.peers) != 0 {
		c.t.Errorf("peers stay behind: %v", c.peers)
	}
	return texts
}

func said(t *testing.T, texts map[string]string, check, words string) {
	t.Helper()
	if !strings.Contains(texts[check], words) {
		t.Errorf("%s says %q, not %q", check, texts[check], words)
	}
}

func TestExaminationWithoutASession(t *testing.T) {
	c := newFakeCluster(t)
	texts := c.examine(localapi.NewStatus())
	said(t, texts, "cluster/credentials", "ok: the API server knows us as alice")
	said(t, texts, "path/enrol", "ok: one gateway admits us")
	said(t, texts, "path/apiserver", "ok: gw-0 answers in")
	said(t, texts, "path/udp", "of gw-0 answers in")
	said(t, texts, "path/mtu", "ok: UDP datagrams of 1452 bytes")
	said(t, texts, "host/privilege", "")
	if len(c.all) != 1 || !strings.Contains(c.all[0], "doctor") {
		t.Errorf("enrolled as %v", c.all)
	}
}

func TestExaminationOfASession(t *testing.T) {
	c := newFakeCluster(t)
	since := time.Now()
	s := localapi.NewStatus()
	s.Connections = append(s.Connections, localapi.Connection{Name: "dev", Server: "https://api.example", Since: &since,
		Gateway: localapi.Gateway{Namespace: "podnet-system", Pod: "gw-0"}, Path: localapi.Path{Kind: "apiserver"}, DNS: localapi.DNS{Zone: "no-such-zone.invalid"}})
	texts := c.examine(s)
	said(t, texts, "path/session", "ok: connected to dev by apiserver")
	if len(c.all) != 0 {
		t.Errorf("enrolled beside the session: %v", c.all)
	}
}

func TestExaminationGoesOnAfterARefusal(t *testing.T) {
	c := newFakeCluster(t)
	c.refuse = &cluster.ForbiddenError{User: "alice", Permission: cluster.Permission{Verb: "create", Resource: "peers", Namespace: "podnet-system"}, Ask: "kubectl x"}
	texts := c.examine(localapi.NewStatus())
	said(t, texts, "path/enrol", "problem: alice may not create peers")
	if texts["host/privilege"] == "" {
		t.Error("the host was not looked at")
	}
	err := Run(t.Context(), Config{Log: slog.New(slog.DiscardHandler), Status: localapi.NewStatus,
		OpenCluster: func(localapi.Kube) (Cluster, error) { return nil, errors.New("no kubeconfig") }}, func(f localapi.Finding) { texts[f.Check] = f.Text })
	if err != nil || texts["cluster/kubeconfig"] != "no kubeconfig" {
		t.Errorf("%v, %q", err, texts["cluster/kubeconfig"])
	}
}
