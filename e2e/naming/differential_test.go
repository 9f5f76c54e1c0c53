// Package naming holds the cluster's names as podnet gives them against
// CoreDNS, for whose answers clusters are built: the same API server, the same
// objects, the same questions.
package naming

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/e2e/apiserver"
)

var types = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT, dns.TypeCNAME, dns.TypePTR, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeHTTPS, dns.TypeCAA, dns.TypeANY}

// outside are the names of CoreDNS's own configuration: beyond the zone, and
// one inside it.
var outside = []string{"hosts {", "    192.0.2.80 example.com", "    192.0.2.81 both.example.com", "    2001:db8::81 both.example.com",
	"    192.0.2.82 legacy.shop.svc.cluster.local", "    fallthrough", "}",
	"template IN PTR example.com {", "    rcode NOERROR", "}", "template ANY ANY gone.example.com {", "    rcode NXDOMAIN", `    authority "example.com. 60 IN SOA ns.example.com. root.example.com. 1 60 60 60 60"`, "}"}

func TestSameAsCoreDNS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an API server")
	}
	s := apiserver.Start(t)
	admin := s.Admin(t)
	f := newFixture()
	f.create(t, admin)
	runPod(t, admin, "shop", "web-7c9f-x2", "10.244.1.40")

	doc, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, tt := range []struct {
		name, domain string
		options      []string
	}{
		{"as kubeadm has it", zone, []string{"pods insecure", "ttl 30"}},
		{"plain", zone, nil},
		{"pods verified", zone, []string{"pods verified", "ttl 2"}},
		{"endpoint_pod_names", zone, []string{"endpoint_pod_names", "pods insecure", "ttl 3600"}},
		{"another zone", "k8s.example.org", []string{"pods insecure", "endpoint_pod_names", "ttl 0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			theirs := s.CoreDNS(t, tt.domain, tt.options, outside)
			ours := serveZone(t, s, tt.domain, theirs)
			var questions []dns.Question
			for _, name := range f.names(tt.domain) {
				for _, qtype := range types {
					questions = append(questions, dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET})
				}
			}
			for _, a := range f.addresses() {
				name, err := dns.ReverseAddr(a.String())
				if err != nil {
					t.Fatal(err)
				}
				for _, qtype := range []uint16{dns.TypePTR, dns.TypeA, dns.TypeTXT} {
					questions = append(questions, dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET})
				}
			}
			var explained map[string]int
			// Both read from the API server in their own time, and we find out
			// how CoreDNS is set up.
			apiserver.Eventually(t, 20*time.Second, "the same answers", func() error {
				var differences []string
				explained, differences = compare(t, ours, theirs, tt.domain, questions)
				if n := len(differences); n > 0 {
					return fmt.Errorf("%d of %d answers differ:\n%s", n, len(questions), strings.Join(differences[:min(n, 40)], "\n"))
				}
				return nil
			})
			total := 0
			for why, n := range explained {
				seen[why] += n
				total += n
			}
			t.Logf("%d questions, %d answers the same, %d explained", len(questions), len(questions)-total, total)
		})
	}
	for _, why := range slices.Sorted(maps.Keys(explanations)) {
		t.Logf("%5d %s: %s", seen[why], why, explanations[why])
		if seen[why] == 0 {
			t.Errorf("%s: no answer differs like that any more", why)
		}
		if !strings.Contains(string(doc), explanations[why]) {
			t.Errorf("docs/dns.md does not say: %s", explanations[why])
		}
	}
}

// runPod makes a pod that has an address. Nobody runs it.
func runPod(t testing.TB, c client.Client, ns, name, addr string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Image: "app"}}
	for _, o := range []client.Object{&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}}, p} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, addr, []corev1.PodIP{{IP: addr}}
	if err := c.Status().Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// compare asks both for everything. It counts the differences that have an
// explanation and lists the others.
func compare(t testing.TB, ours, theirs netip.AddrPort, domain string, questions []dns.Question) (map[string]int, []string) {
	t.Helper()
	explained := map[string]int{}
	var differences []string
	us, them := dialTo(t, ours), dialTo(t, theirs)
	defer us.Close()
	defer them.Close()
	for _, q := range questions {
		a, b := answerOf(t, us, q), answerOf(t, them, q)
		for _, why := range differ(q, domain, a, b) {
			if explanations[why] != "" {
				explained[why]++
				continue
			}
			differences = append(differences, fmt.Sprintf("%s %s: %s\n  podnet  %v\n  CoreDNS %v", q.Name, dns.TypeToString[q.Qtype], why, a, b))
		}
	}
	return explained, differences
}

// dialTo opens a TCP connection: by UDP neither could say all.
func dialTo(t testing.TB, server netip.AddrPort) *dns.Conn {
	t.Helper()
	c, err := dns.Dial("tcp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is what of a message matters to a client: sections as sorted text in
// lower case, without what the specification leaves open.
type answer struct {
	rcode         string
	answers, glue []string
	start         string // whose authority says that there is nothing; "": nobody's
	authoritative bool
	ttl           uint32 // of the first answer
}

func (a answer) String() string {
	return fmt.Sprintf("%s %q glue %q SOA %q", a.rcode, a.answers, a.glue, a.start)
}

func answerOf(t testing.TB, c *dns.Conn, q dns.Question) answer {
	t.Helper()
	m := new(dns.Msg)
	m.Id, m.RecursionDesired, m.Question = dns.Id(), true, []dns.Question{q}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := c.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	r, err := c.ReadMsg()
	if err != nil {
		t.Fatalf("%s %s: %v", q.Name, dns.TypeToString[q.Qtype], err)
	}
	a := answer{rcode: dns.RcodeToString[r.Rcode], answers: texts(r.Answer), glue: texts(r.Extra), authoritative: r.Authoritative}
	if len(r.Answer) > 0 {
		a.ttl = r.Answer[0].Header().Ttl
	}
	for _, rr := range r.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			a.start = strings.ToLower(rr.Header().Name)
		}
	}
	return a
}

func texts(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		h := rr.Header()
		data := strings.TrimPrefix(rr.String(), h.String())
		if srv, ok := rr.(*dns.SRV); ok { // priority and weight are not prescribed
			data = fmt.Sprintf("%d %s", srv.Port, srv.Target)
		}
		if soa, ok := rr.(*dns.SOA); ok {
			data = soa.Ns + " " + soa.Mbox
		}
		out = append(out, strings.ToLower(h.Name+" "+dns.TypeToString[h.Rrtype]+" "+data))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
