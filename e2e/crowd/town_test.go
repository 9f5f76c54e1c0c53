package crowd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/dnsproxy"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/probe"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// town is a cluster in this process: a gateway that admits whoever asks, a name
// server and two Services behind it. Each laptop sees it as a client.Cluster.
type town struct {
	private key.Private
	bind    *transport.Bind
	tunnel  *tunnel.Tunnel
	streams net.Listener

	mu    sync.Mutex
	peers map[string]*v1alpha1.Peer
	last  netip.Addr // the tunnel address given last
}

var (
	nameServer = netip.MustParseAddr("198.18.0.1")
	service    = netip.MustParseAddr("10.96.0.10")
)

const (
	shopURL  = "http://web.shop.svc.cluster.local"
	echoAddr = "echo.shop.svc.cluster.local:5432"
)

// newTown serves until the test ends.
func newTown(t testing.TB, log *slog.Logger) *town {
	t.Helper()
	c := &town{peers: map[string]*v1alpha1.Peer{}, last: nameServer}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	c.private, err = key.NewPrivate()
	must(err)
	stack, err := netstack.New(netstack.Config{MTU: 16384, Log: log})
	must(err)
	for _, a := range []netip.Addr{nameServer, service} {
		must(stack.AddAddress(a))
	}
	c.bind = transport.NewBind(transport.Options{Log: log, RecvBuffer: transport.GatewayRecvBuffer})
	c.tunnel, err = tunnel.New(stack.Device(), c.bind, tunnel.Config{PrivateKey: c.private, Log: log})
	must(err)
	c.streams, err = net.Listen("tcp", "127.0.0.1:0")
	must(err)
	questions, err := stack.ListenUDP(netip.AddrPortFrom(nameServer, 53))
	must(err)
	web, err := stack.ListenTCP(netip.AddrPortFrom(service, 80))
	must(err)
	echo, err := stack.ListenTCP(netip.AddrPortFrom(service, 5432))
	must(err)

	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	shop := &http.Server{Handler: http.HandlerFunc(serveShop)}
	wg.Go(func() { _ = c.bind.ServeStreams(ctx, c.streams) })
	wg.Go(func() { _ = shop.Serve(web) })
	wg.Go(func() { serveEcho(echo) })
	wg.Go(func() {
		names := dnsproxy.NewServer(dnsproxy.HandlerFunc(answerName), dnsproxy.Options{Log: log})
		_ = names.Serve(ctx, []net.PacketConn{questions}, nil)
	})
	t.Cleanup(func() {
		stop()
		_ = shop.Close()
		_ = echo.Close()
		_ = c.tunnel.Close()
		_ = stack.Close()
		wg.Wait()
	})
	return c
}

// answerName knows one address.
func answerName(_ context.Context, r *dnsproxy.Request) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r.Msg)
	if q := r.Msg.Question[0]; q.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: service.AsSlice()}}
	}
	return m
}

func serveShop(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	if r.URL.Path == "/sink" {
		n, _ := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
		return
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	w.Header().Set("Trailer", "Sha256")
	_, _ = io.Copy(io.MultiWriter(w, sum), bytes.NewReader(bytes.Repeat([]byte("blob"), size/4)))
	w.Header().Set("Sha256", hex.EncodeToString(sum.Sum(nil)))
}

func serveEcho(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}

// admitLocked makes the tunnel's peers those that have an object; mu is held.
func (c *town) admitLocked() error {
	var peers []tunnel.Peer
	var probes []probe.Key
	for _, p := range c.peers {
		public, err := key.ParsePublic(p.Spec.PublicKey)
		if err != nil {
			return err
		}
		k, err := probe.NewKey(c.private, public)
		if err != nil {
			return err
		}
		probes = append(probes, k)
		own := netip.MustParseAddr(p.Status.Address4)
		peers = append(peers, tunnel.Peer{PublicKey: public, AllowedIPs: []netip.Prefix{netip.PrefixFrom(own, own.BitLen())}})
	}
	c.bind.Answer(probes)
	return c.tunnel.SetPeers(peers)
}

// resident is the town as one laptop sees it.
type resident struct{ *town }

func (r resident) Check(context.Context) error { return nil }
func (r resident) Whoami() cluster.Identity {
	return cluster.Identity{Context: "town", Namespace: "shop", Server: "https://town", User: "somebody"}
}
func (r resident) Remotes() []netip.Addr                        { return nil }
func (r resident) Namespaces(context.Context) ([]string, error) { return []string{"shop"}, nil }
func (r resident) Redial()                                      {}

func (r resident) CreatePeer(_ context.Context, _, name string, spec v1alpha1.PeerSpec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.last.Next()
	endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.tunnel.ListenPort())
	r.peers[name] = &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec, Status: v1alpha1.PeerStatus{
		Address4: r.last.String(),
		Gateways: []v1alpha1.Gateway{{Pod: "podnet-gateway-0", PublicKey: r.private.Public().String(), Endpoints: []string{endpoint.String()}, StreamPort: 51821}},
		Network: &v1alpha1.Network{PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"}, DNSDomain: "cluster.local",
			DNSAddresses: []string{nameServer.String()}},
	}}
	return r.admitLocked()
}

func (r resident) RenewPeer(_ context.Context, _, name string, _ int64) error {
	_, err := r.Peer(context.Background(), "", name)
	return err
}

func (r resident) SetCandidates(context.Context, string, string, []string) error { return nil }

func (r resident) DeletePeer(_ context.Context, _, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peers, name)
	return r.admitLocked()
}

func (r resident) Peer(_ context.Context, _, name string) (*v1alpha1.Peer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[name]; p != nil {
		return p.DeepCopy(), nil
	}
	return nil, cluster.ErrGone
}

func (r resident) Await(ctx context.Context, ns, name string, _ []string) (*v1alpha1.Peer, error) {
	return r.Peer(ctx, ns, name)
}

func (r resident) CreateAccess(context.Context, string, string, v1alpha1.AccessScope) error {
	return nil
}
func (r resident) RenewAccess(context.Context, string, string, v1alpha1.AccessScope, int64) error {
	return nil
}
func (r resident) DeleteAccess(context.Context, string, string) error { return nil }

func (r resident) DialPod(ctx context.Context, _, _ string, _ uint16) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", r.streams.Addr().String())
}
