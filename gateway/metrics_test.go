package gateway

import (
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	podnet "podnet.dev/api/v1alpha1"
)

// described are all metrics as docs/metrics.md has them: name{labels} to type.
func described() map[string]string {
	all := map[string]string{dnsAnswerTime.name: "histogram"}
	for _, f := range slices.Concat(allFamilies, userFamilies) {
		name := f.name
		if len(f.labels) > 0 {
			name += "{" + strings.Join(f.labels, ",") + "}"
		}
		all[name] = map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[f.kind]
	}
	return all
}

// The names are as Prometheus wants them: counters end in _total, and nothing else
// does; units are base units and at the end.
func TestMetricNames(t *testing.T) {
	for _, f := range append(slices.Concat(allFamilies, userFamilies), dnsAnswerTime) {
		if !regexp.MustCompile(`^podnet_[a-z][a-z0-9_]*$`).MatchString(f.name) {
			t.Errorf("%s is no name", f.name)
		}
		if strings.HasSuffix(f.name, "_total") != (f.kind == prometheus.CounterValue) {
			t.Errorf("%s is a counter or its name says so", f.name)
		}
		for _, bad := range []string{"_ms", "_millis", "_kb", "_kib", "_percent", "_minutes"} {
			if strings.Contains(f.name+"_", bad+"_") {
				t.Errorf("%s is in no base unit", f.name)
			}
		}
		for _, l := range f.labels {
			if l == "user" && !slices.Contains(userFamilies, f) {
				t.Errorf("%s tells users", f.name)
			}
			if slices.Contains([]string{"addr", "address", "peer", "device", "pod", "name", "namespace"}, l) {
				t.Errorf("%s has as many series as there are values of %s", f.name, l)
			}
		}
		if !strings.HasSuffix(f.help, ".") {
			t.Errorf("%s: %q is no sentence", f.name, f.help)
		}
	}
}

// docs/metrics.md lists every metric with its labels and its type, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	want := described()
	for _, m := range regexp.MustCompile("(?m)^\\| `(podnet_[^`]+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		switch kind, ok := want[m[1]]; {
		case !ok:
			t.Errorf("docs/metrics.md has %s, which is not there", m[1])
		case kind != m[2]:
			t.Errorf("docs/metrics.md calls %s a %s, it is a %s", m[1], m[2], kind)
		}
		delete(want, m[1])
	}
	for name, kind := range want {
		t.Errorf("docs/metrics.md lacks %s, a %s", name, kind)
	}
}

// The dashboard asks for metrics that are there, by labels that they have.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../deploy/grafana/podnet.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, f := range slices.Concat(allFamilies, userFamilies) {
		labels[f.name] = f.labels
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		labels[dnsAnswerTime.name+suffix] = []string{"le"}
	}
	shown, ids := map[string]bool{}, map[int]bool{}
	series := regexp.MustCompile(`(podnet_\w+)(\{[^}]*\})?`)
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("panel %d is there twice", p.ID)
		}
		ids[p.ID] = true
		if p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q asks for nothing", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			found := series.FindAllStringSubmatch(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%q asks for no metric of podnet: %s", p.Title, target.Expr)
			}
			for _, m := range found {
				have, ok := labels[m[1]]
				if !ok {
					t.Errorf("%q asks for %s, which is not there", p.Title, m[1])
				}
				shown[m[1]] = true
				for _, l := range regexp.MustCompile(`(\w+)\s*[=!]~?"`).FindAllStringSubmatch(m[2], -1) {
					if l[1] != "job" && l[1] != "pod" && l[1] != "namespace" && !slices.Contains(have, l[1]) {
						t.Errorf("%q asks for the label %s of %s", p.Title, l[1], m[1])
					}
				}
			}
			for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(target.Expr, -1) {
				for l := range strings.SplitSeq(by[1], ",") {
					l = strings.TrimSpace(l)
					if l != "pod" && !slices.Contains(slices.Concat(slices.Collect(valuesOf(labels, found))...), l) {
						t.Errorf("%q sums by %s, which %s does not have", p.Title, l, target.Expr)
					}
				}
			}
		}
	}
	for name := range labels {
		if base, of := strings.CutPrefix(name, dnsAnswerTime.name); of && base != "_bucket" {
			continue
		}
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

func valuesOf(labels map[string][]string, found [][]string) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for _, m := range found {
			if !yield(labels[m[1]]) {
				return
			}
		}
	}
}

// What is scraped tells users only where the administrator wants it, and adds up.
func TestScrape(t *testing.T) {
	s := setStage(t)
	web := s.pod("shop", "web", "10.96.1.1")
	for _, c := range []struct {
		pod   string
		users bool
	}{{"podnet-gateway-0", false}, {"podnet-gateway-1", true}} {
		g, stop := s.startWith(c.pod, func(o *Options) { o.UserMetrics = c.users })
		l := s.enrol("laptop-"+c.pod, 300, "shop")
		l.await("knows the gateway", func(p *podnet.Peer) bool { return len(p.Status.Gateways) > 0 && p.Status.Gateways[0].Pod == c.pod })
		l.connect(g, netip.PrefixFrom(web.Addr(), 32))
		conn, err := l.dial(web, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := echo(conn); err != nil {
			t.Fatal(err)
		}
		if _, err := l.resolve("web.shop.svc.cluster.test."); err != nil {
			t.Fatal(err)
		}
		text, err := fetch(g, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			`podnet_gateway_flows{proto="tcp"} 1`, `podnet_gateway_flow_bytes_total{direction="up"} `, `podnet_gateway_wireguard_bytes_total{direction="up",path="udp"} `,
			`podnet_gateway_limit{limit="user-connections"} 10000`, `podnet_gateway_flows_over_limit_total{limit="user-rate"} 0`,
			`podnet_gateway_dns_answers_total{rcode="NOERROR"} `, `podnet_gateway_dns_answer_seconds_count `, `podnet_gateway_memory_used_bytes `,
			`podnet_steering_requests_total{outcome="taken"} 0`, `podnet_gateway_watch_last_event_timestamp_seconds `,
		} {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("%s: no %s", c.pod, line)
			}
		}
		if got := strings.Contains(text, "alice"); got != c.users {
			t.Errorf("%s tells users: %v", c.pod, got)
		}
		for _, line := range []string{`podnet_gateway_user_flows{proto="tcp",user="alice"} 1`, `podnet_gateway_user_bytes_total{direction="up",path="udp",user="alice"} `, `podnet_gateway_user_peers{user="alice"} `} {
			if strings.Contains(text, line) != c.users {
				t.Errorf("%s: %s", c.pod, line)
			}
		}
		if n := len(regexp.MustCompile(`(?m)^podnet_`).FindAllString(text, -1)); n > 200 {
			t.Errorf("%d series of one user", n)
		}
		conn.Close()
		stop()
	}
}
