package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/dnsproxy"
	"podnet.dev/gateway/ground"
	"podnet.dev/internal/limits"
	"podnet.dev/internal/measure"
)

// clusterServer is the cluster's own DNS server: it has one name that is not in
// the API, and takes a moment for all.
type clusterServer struct {
	at          netip.AddrPort
	asked       atomic.Int64
	under, most atomic.Int64 // questions at once
	down        atomic.Bool
}

const onlyThere = "legacy.shop.svc.cluster.test."

func startClusterServer(t *testing.T) *clusterServer {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &clusterServer{at: p.LocalAddr().(*net.UDPAddr).AddrPort()}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- dnsproxy.NewServer(c, dnsproxy.Options{MaxInFlight: 4096}).Serve(ctx, []net.PacketConn{p}, nil)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *clusterServer) ServeDNS(ctx context.Context, r *dnsproxy.Request) *dns.Msg {
	c.asked.Add(1)
	if c.down.Load() {
		<-ctx.Done()
		return nil
	}
	n := c.under.Add(1)
	defer c.under.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(2 * time.Millisecond)
	if r.Name() == onlyThere && r.Question().Qtype == dns.TypeA {
		rr, _ := dns.NewRR(onlyThere + " 1 IN A 192.0.2.80")
		return &dns.Msg{Answer: []dns.RR{rr}}
	}
	m := dnsproxy.Refuse(dns.RcodeNameError)
	m.Ns = []dns.RR{dnsproxy.SOA("cluster.test.", "cluster.test.", 1, 5)}
	return m
}

// flood asks rate questions a second until ctx ends, every other one for a name
// that nobody has asked for before, and hears no answer out.
func (l *laptop) flood(ctx context.Context, rate int) error {
	const burst = 50
	c, err := l.stack.DialUDP(netip.AddrPortFrom(ground.Service4, 53))
	if err != nil {
		return err
	}
	go func() {
		for b := make([]byte, 2048); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}()
	defer c.Close()
	tick := time.NewTicker(time.Second * burst / time.Duration(rate))
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for range burst {
			n++
			q := new(dns.Msg)
			if q.SetQuestion("web.shop.svc.cluster.test.", dns.TypeA); n%2 == 0 {
				q.SetQuestion(fmt.Sprintf("x%d.shop.svc.cluster.test.", n), dns.TypeA)
			}
			wire, err := q.Pack()
			if err != nil {
				return err
			}
			if _, err := c.Write(wire); err != nil {
				return err
			}
		}
	}
}

// latency asks for a name again and again for a while, one question after the
// other, and tells how long the answers took; one that is lost took a second.
func (l *laptop) latency(name string, rcode int, d time.Duration) (took []time.Duration, lost int, err error) {
	c, err := l.stack.DialUDP(netip.AddrPortFrom(ground.Service4, 53))
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c, UDPSize: 1232}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.SetEdns0(1232, false)
		const patience = time.Second
		began := time.Now()
		_ = conn.SetDeadline(began.Add(patience))
		if err := conn.WriteMsg(q); err != nil {
			return nil, 0, err
		}
		m, err := conn.ReadMsg()
		if err != nil || m.Id != q.Id {
			lost++
			took = append(took, patience)
			continue
		}
		if m.Rcode != rcode {
			return nil, 0, fmt.Errorf("%s: %v", name, m)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, lost, nil
}

// TestFloodOfOnePeerLeavesOthersAlone has one laptop ask for 5,000 names a second,
// half of them made up, and measures how another one fares, the cluster's own DNS
// server, and memory; and what is left of it all when that server is silent.
func TestFloodOfOnePeerLeavesOthersAlone(t *testing.T) {
	s := setStage(t)
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.1", Ports: []corev1.ServicePort{{Port: 80}}}})
	server := startClusterServer(t)
	pid, port, web, _ := s.startBounded(limits.Default(), "460MiB", server.at)
	eve, ada := s.enrol("eve", 300, "shop"), s.enrol("ada", 300, "shop")
	eve.connectAt(port)
	ada.connectAt(port)
	if _, err := ada.resolve("web.shop.svc.cluster.test."); err != nil {
		t.Fatal(err)
	}

	const rate, lasts, known = 5000, 5 * time.Second, "web.shop.svc.cluster.test."
	fares := func(what string, names ...string) {
		var group errgroup.Group
		for _, name := range names {
			group.Go(func() error {
				took, lost, err := ada.latency(name, dns.RcodeSuccess, lasts)
				if err != nil {
					return err
				}
				if lost > len(took)/100 {
					return fmt.Errorf("%s: %d answers, %d lost", name, len(took), lost)
				}
				t.Logf("%s, %s: %d answers, %d lost, half within %v, the last after %v", what, name, len(took), lost, took[len(took)/2], took[len(took)-1])
				measure.AtMost(t, fmt.Sprintf("[43] %s, %s: 99 of 100 answers", what, name), took[len(took)*99/100], 20*time.Millisecond)
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	fares("at rest", known, onlyThere)
	asked := server.asked.Load()
	server.most.Store(0)
	resident := memory(t, pid, "VmRSS")
	flooding, stop := context.WithCancel(t.Context())
	var flood errgroup.Group
	flood.Go(func() error { return eve.flood(flooding, rate) })
	heard := func() float64 { return metric(t, web, "podnet_gateway_dns_questions_total") }
	before, began := heard(), time.Now()
	fares("beside a flood", known, onlyThere)
	took := time.Since(began)
	arrived, n := (heard()-before)/took.Seconds(), float64(server.asked.Load()-asked)/took.Seconds()
	server.down.Store(true)
	fares("beside a flood, while the cluster's server is silent", known)
	measure.AtMost(t, fmt.Sprintf("[43] the most memory that the gateway ever took, above the %.0f MiB before the flood", resident), measure.MiB(memory(t, pid, "VmHWM")-resident), 32)
	stop()
	if err := flood.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("MEASURED [43] the gateway heard %.0f questions a second and asked the cluster's server %.0f a second, at most %d at once", arrived, n, server.most.Load())
	if most := float64(limits.Default().PeerQuestions)*(1+2/took.Seconds()) + 50; n > most {
		t.Errorf("the cluster's server was asked %.0f questions a second, want %.0f at the most", n, most)
	}
	if most := server.most.Load(); most > 2*int64(askAtOnce) {
		t.Errorf("%d questions at once", most)
	}
}
