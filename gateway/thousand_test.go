package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/key"
	"podnet.dev/internal/limits"
	"podnet.dev/internal/measure"
)

// TestThousandPeers has a thousand laptops of two hundred users renew what they have,
// three namespaces each, as clients do, and measures what that costs. It takes some
// four minutes of two cores that have nothing else to do.
func TestThousandPeers(t *testing.T) {
	if os.Getenv("PODNET_E2E_LONG") == "" {
		t.Skip("makes 4,000 objects and watches them for four minutes; PODNET_E2E_LONG=1 runs it")
	}
	const (
		users, each = 200, 5 // a user's limit
		lease       = 300 * time.Second
		interval    = lease / 3 // of a client's renewals
		rounds      = 2         // the gateway writes every other one into a Peer's status
		mostWrites  = 45.0      // a second
		mostCPU     = 0.2       // of a core
	)
	namespaces := []string{"one", "two", "three"}
	s := setStage(t)
	s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.DefaultNamespace, Name: "crowd"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "crowd"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "podnet-connect"}})
	for _, ns := range namespaces {
		s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		s.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "crowd"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "crowd"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "podnet-user"}})
	}
	pid, _, web, _ := s.startBounded(limits.Default(), "460MiB")
	t.Logf("MEASURED [12] the gateway with nobody: %s", footprint(t, pid, web))

	// Who renews is a laptop: its Peer, then its Accesses, with its user's credentials.
	type member struct {
		c    *rest.RESTClient
		user string
		name string
	}
	var crowd []member
	for u := range users {
		user := fmt.Sprintf("user-%d", u)
		config := s.server.ConfigAs(user, "crowd")
		config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &podnet.GroupVersion, "/apis", clientgoscheme.Codecs.WithoutConversion()
		c, err := rest.RESTClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		for d := range each {
			crowd = append(crowd, member{c, user, fmt.Sprintf("%s-%d", user, d)})
		}
	}
	paths := func(m member) []string {
		all := []string{"/apis/podnet.dev/v1alpha1/namespaces/" + deploy.DefaultNamespace + "/peers"}
		for _, ns := range namespaces {
			all = append(all, "/apis/podnet.dev/v1alpha1/namespaces/"+ns+"/accesses")
		}
		return all
	}
	apiserver.Eventually(t, 10*time.Second, "the crowd's roles work", func() error {
		return s.server.As(t, "user-0", "crowd").Create(t.Context(), &podnet.Access{ObjectMeta: metav1.ObjectMeta{Namespace: "three", Name: "probe"},
			Spec: podnet.AccessSpec{User: "user-0", Peer: "probe", Renew: 1}}, client.DryRunAll)
	})

	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for _, m := range crowd {
		group.Go(func() error {
			secret, err := key.NewPrivate()
			if err != nil {
				return err
			}
			for i, path := range paths(m) {
				text := fmt.Sprintf(`{"apiVersion":"podnet.dev/v1alpha1","kind":"Access","metadata":{"name":%q},"spec":{"user":%q,"peer":%q,"renew":1}}`, m.name, m.user, m.name)
				if i == 0 {
					text = fmt.Sprintf(`{"apiVersion":"podnet.dev/v1alpha1","kind":"Peer","metadata":{"name":%q},"spec":{"user":%q,"device":%q,"publicKey":%q,"leaseSeconds":%d,"renew":1}}`,
						m.name, m.user, m.name, secret.Public(), int(lease.Seconds()))
				}
				if err := m.c.Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body([]byte(text)).Do(ctx).Error(); err != nil {
					return fmt.Errorf("%s %s: %w", path, m.name, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d Peers and %d Accesses made in %v", len(crowd), len(crowd)*len(namespaces), time.Since(began).Round(time.Second))
	ready := func(o client.ObjectList) (n int) {
		if err := s.admin.List(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		switch o := o.(type) {
		case *podnet.PeerList:
			for _, p := range o.Items {
				if meta.IsStatusConditionTrue(p.Status.Conditions, podnet.ConditionReady) {
					n++
				}
			}
		case *podnet.AccessList:
			for _, a := range o.Items {
				if meta.IsStatusConditionTrue(a.Status.Conditions, podnet.ConditionReady) {
					n++
				}
			}
		}
		return n
	}
	apiserver.Eventually(t, 2*time.Minute, "all are admitted", func() error {
		if p, a := ready(&podnet.PeerList{}), ready(&podnet.AccessList{}); p != len(crowd) || a != len(crowd)*len(namespaces) {
			return fmt.Errorf("%d Peers and %d Accesses", p, a)
		}
		return nil
	})

	t.Logf("all are admitted after %v; the gateway: %s", time.Since(began).Round(time.Second), footprint(t, pid, web))

	// round renews everything once, evenly over the interval.
	round := func(renewal int) {
		patch := fmt.Appendf(nil, `{"spec":{"renew":%d}}`, renewal)
		group, ctx := errgroup.WithContext(t.Context())
		start := time.Now()
		for i, m := range crowd {
			time.Sleep(time.Until(start.Add(interval * time.Duration(i) / time.Duration(len(crowd)))))
			group.Go(func() error {
				for _, path := range paths(m) {
					if err := m.c.Patch(types.MergePatchType).AbsPath(path, m.name).Body(patch).Do(ctx).Error(); err != nil {
						return fmt.Errorf("%s %s: %w", path, m.name, err)
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Until(start.Add(interval)))
	}
	before, cpu, at := s.tally(), cpuTime(t, pid), time.Now()
	for i := range rounds {
		round(2 + i)
	}
	span, after := time.Since(at).Seconds(), s.tally()
	if most := 1.2 * rounds * interval.Seconds(); span > most {
		t.Fatalf("this machine is too busy: it took %.0f s to renew what laptops renew in %.0f s", span, rounds*interval.Seconds())
	}
	writes := after.writes - before.writes
	perSecond, core := writes/span, (cpuTime(t, pid)-cpu).Seconds()/span
	measure.AtMost(t, "[12] writes to the API server, the gateway's included", measure.PerSecond(perSecond), mostWrites)
	measure.AtMost(t, "[12] the gateway's CPU", measure.Cores(core), mostCPU)
	t.Logf("MEASURED [12] the gateway with 1,000 Peers and 3,000 Accesses: %s", footprint(t, pid, web))
	t.Logf("MEASURED [12] the API server's CPU: %.2f of a core, %.1f ms a write, all that it does included; %.0f bytes an event of a watch",
		(after.cpu-before.cpu)/span, 1000*(after.cpu-before.cpu)/writes, (after.bytes-before.bytes)/(after.events-before.events))
	if perSecond > mostWrites {
		t.Errorf("%.1f writes a second, at most %.0f", perSecond, mostWrites)
	}
	if core > mostCPU {
		t.Errorf("%.2f of a core, at most %.1f", core, mostCPU)
	}
	if p, a := ready(&podnet.PeerList{}), ready(&podnet.AccessList{}); p != len(crowd) || a != len(crowd)*len(namespaces) {
		t.Errorf("after it %d Peers and %d Accesses are admitted", p, a)
	}
}

// footprint is what a process with metrics at that port has.
func footprint(t *testing.T, pid int, web uint16) string {
	t.Helper()
	return fmt.Sprintf("%.0f MiB resident, %.0f without its program's file, %.0f of that for good; %.0f goroutines",
		memory(t, pid, "VmRSS"), memory(t, pid, "RssAnon"), metric(t, web, "podnet_gateway_memory_used_bytes")/(1<<20), metric(t, web, "go_goroutines"))
}

// tally is what the API server has counted so far.
type tally struct {
	writes        float64 // of podnet's objects, dry runs left out
	cpu           float64 // seconds
	events, bytes float64 // of watches of podnet's objects
}

// tallied are its series for that.
var tallied = []struct {
	series *regexp.Regexp
	field  func(*tally) *float64
}{
	{regexp.MustCompile(`^apiserver_request_total\{.*dry_run="",group="podnet.dev".*verb="(?:POST|PUT|PATCH|APPLY|DELETE)".*\} (\S+)$`), func(c *tally) *float64 { return &c.writes }},
	{regexp.MustCompile(`^process_cpu_seconds_total (\S+)$`), func(c *tally) *float64 { return &c.cpu }},
	{regexp.MustCompile(`^apiserver_watch_events_sizes_count\{group="podnet.dev".*\} (\S+)$`), func(c *tally) *float64 { return &c.events }},
	{regexp.MustCompile(`^apiserver_watch_events_sizes_sum\{group="podnet.dev".*\} (\S+)$`), func(c *tally) *float64 { return &c.bytes }},
}

func (s *stage) tally() (c tally) {
	s.Helper()
	config := s.server.Config()
	config.GroupVersion, config.NegotiatedSerializer = &podnet.GroupVersion, clientgoscheme.Codecs.WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		s.Fatal(err)
	}
	text, err := client.Get().AbsPath("/metrics").DoRaw(context.Background())
	if err != nil {
		s.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		for _, one := range tallied {
			m := one.series.FindStringSubmatch(lines.Text())
			if m == nil {
				continue
			}
			v, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				s.Fatal(err)
			}
			*one.field(&c) += v
		}
	}
	for _, one := range tallied {
		if *one.field(&c) == 0 {
			s.Fatalf("the API server counts nothing as %s", one.series)
		}
	}
	return c
}

// cpuTime is what a process has computed so far, in user and kernel.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th field, in ticks of 10 ms; the
	// second, the name, may have anything in it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
