package deploy

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// chart is the Helm chart. Its templates are the embedded manifests in Helm's words;
// those that are kept by hand are _options.tpl, which does what Options does, and the
// notes.
const chart = "helm/podnet"

// words turns the manifests' words into those of the chart, where . is what
// podnet.options made.
var words = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`\{\{ quote \$\.`), "{{ toJson $$o."},
	{regexp.MustCompile(`\{\{ quote \.`), "{{ toJson ."},
	{regexp.MustCompile(`\{\{ quote (\w+) \}\}`), "{{ toJson .$1 }}"},
	{regexp.MustCompile(`\{\{ cel (\.\w+) \}\}`), "'{{ $1 }}'"},
	{regexp.MustCompile(`\{\{- range udpServices \}\}`), "{{- range .udpServices }}"},
	{regexp.MustCompile(`\{\{ (selector|pods|podLabels|subjects|pullSecrets|args|metricsFrom) \}\}`), "{{ toJson .$1 }}"},
}

// theBeyond is a part of the manifests that no value changes.
var theBeyond = regexp.MustCompile(`(?s)\{\{- range \$kind := beyond \}\}.*?\n\{\{- end \}\}\n\{\{- end \}\}`)

// inHelm is one of the manifests as a template of the chart.
func inHelm(t *testing.T, text string) string {
	text = theBeyond.ReplaceAllStringFunc(text, func(part string) string {
		var out bytes.Buffer
		if err := template.Must(template.New("").Funcs(template.FuncMap{"beyond": beyond}).Parse(part)).Execute(&out, nil); err != nil {
			t.Fatal(err)
		}
		return out.String()
	})
	for _, w := range words {
		text = w.from.ReplaceAllString(text, w.to)
	}
	// Every object gets the labels that Render gives it.
	const labels = "    {{- toYaml $o.labels | nindent 4 }}\n"
	lines := strings.SplitAfter(text, "\n")
	var out strings.Builder
	inMetadata := false
	for i, line := range lines {
		if inMetadata && line == "  labels:\n" {
			out.WriteString(line + labels)
			inMetadata = false
			continue
		}
		if inMetadata && !strings.HasPrefix(line, " ") {
			inMetadata = false
		}
		out.WriteString(line)
		if line != "metadata:\n" {
			continue
		}
		if inMetadata = hasLabels(lines[i+1:]); !inMetadata {
			out.WriteString("  labels:\n" + labels)
		}
	}
	text = out.String()
	if strings.Contains(text, "kind: Namespace\n") {
		text = "{{- if .createNamespace }}\n" + text + "{{- end }}\n"
	}
	return "{{- $o := include \"podnet.options\" . | fromJson }}\n{{- with $o }}\n" + text + "{{- end }}\n"
}

// hasLabels says whether an object whose metadata begins with lines has labels.
func hasLabels(lines []string) bool {
	for _, l := range lines {
		if !strings.HasPrefix(l, " ") {
			return false
		}
		if l == "  labels:\n" {
			return true
		}
	}
	return false
}

// The chart is what make generate makes of the manifests.
func TestChartIsUpToDate(t *testing.T) {
	want := map[string]string{}
	for _, pattern := range []string{"manifests/*.yaml", "manifests/crds/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%v: %s", err, pattern)
		}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want[path.Base(filepath.ToSlash(name))] = inHelm(t, string(raw))
		}
	}
	if *update {
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(chart, "templates", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	have, err := filepath.Glob(filepath.Join(chart, "templates", "*.yaml"))
	if err != nil || len(have) != len(want) {
		t.Errorf("%d templates, want %d (%v)", len(have), len(want), err)
	}
	for _, name := range have {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want[filepath.Base(name)], string(raw)); d != "" {
			t.Errorf("%s differs (-want +got); make generate rewrites it:\n%s", name, d)
		}
	}
}

// renderChart renders as helm template does: values checked by the schema.
func renderChart(t *testing.T, values map[string]any) (map[string]*unstructured.Unstructured, error) {
	t.Helper()
	c, err := loader.LoadDir(chart)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "podnet", Namespace: "default"}, nil)
	if err != nil {
		return nil, err
	}
	texts, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for name, text := range texts {
		if path.Ext(name) != ".yaml" {
			continue
		}
		some, err := parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v in\n%s", name, err, text)
		}
		objects = append(objects, some...)
	}
	return byID(t, objects), nil
}

func byID(t *testing.T, objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	for _, u := range objects {
		id := u.GetKind() + " " + u.GetNamespace() + "/" + u.GetName()
		if all[id] != nil {
			t.Errorf("%s twice", id)
		}
		all[id] = u
	}
	return all
}

// What helm installs is what podnet install installs.
func TestChartIsTheManifests(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		values  map[string]any
	}{
		"nothing chosen": {Options{Image: "podnet.dev/gateway:dev", AgentImage: "podnet.dev/agent:dev"}, nil},
		"node ports": {Options{
			Namespace: "tunnels", Image: "example.org/gw@sha256:00", AgentImage: "example.org/agent:1", PullPolicy: "Never", ImagePullSecrets: []string{"registry"}, Replicas: 3, NodePort: 31820,
			PodCIDRs: []string{"10.0.0.0/8", "fd00:10::/48"}, STUN: []string{"stun.example.org:3478", "[2001:db8::1]:3478"}, DNSDomain: "k8s.example.org", Memory: "1Gi", RequestMemory: "1Gi", RequestCPU: "1", LogLevel: "debug",
			Limits: []string{"user-connections=20k", "user-bytes=50Mi"}, UserMetrics: true, MetricsFrom: []string{"monitoring", "ops"},
			Users: []string{`o'hara "x" <é>`}, Groups: []string{"dev", "ops"},
		}, map[string]any{
			"namespace": "tunnels", "image": "example.org/gw@sha256:00", "agentImage": "example.org/agent:1", "imagePullPolicy": "Never", "imagePullSecrets": []any{"registry"}, "replicas": 3, "nodePort": 31820,
			"podCIDRs": []any{"10.0.0.0/8", "fd00:10::/48"}, "stun": []any{"stun.example.org:3478", "[2001:db8::1]:3478"}, "dnsDomain": "k8s.example.org", "memory": "1Gi", "requestMemory": "1Gi", "requestCPU": "1", "logLevel": "debug",
			"limits": []any{"user-connections=20k", "user-bytes=50Mi"}, "userMetrics": true, "metricsFrom": []any{"monitoring", "ops"},
			"usersAllowed": []any{`o'hara "x" <é>`}, "groupsAllowed": []any{"dev", "ops"},
		}},
		"balancer": {Options{Image: "podnet.dev/gateway:dev", AgentImage: "podnet.dev/agent:dev", UDPService: "LoadBalancer", Advertise: []string{"192.0.2.1:51820"}, Memory: "100Mi", NoNetworkPolicy: true, Groups: []string{"dev"}},
			map[string]any{"networkPolicy": false, "udpService": "LoadBalancer", "advertise": []any{"192.0.2.1:51820"}, "memory": "100Mi", "groupsAllowed": []any{"dev"}}},
	} {
		got, err := renderChart(t, c.values)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(byID(t, render(t, c.options)), got); d != "" {
			t.Errorf("%s: podnet install and helm install differ (-podnet +helm):\n%s", name, d)
		}
	}
	got, err := renderChart(t, map[string]any{"createNamespace": false})
	if err != nil || got["Namespace /podnet-system"] != nil || len(got) != len(render(t, Options{Image: "x", AgentImage: "y"}))-1 {
		t.Errorf("without the namespace: %d objects, %v", len(got), err)
	}
}

func TestChartRefuses(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"an unknown value":        {"replica": 2},
		"image with a line break": {"image": "x\nfoo: bar"},
		"namespace with a quote":  {"namespace": "a'b"},
		"pull policy":             {"imagePullPolicy": "never"},
		"too many replicas":       {"replicas": 10},
		"node port of a balancer": {"udpService": "LoadBalancer", "nodePort": 30000},
		"node ports beyond 65535": {"nodePort": 65535, "replicas": 2},
		"advertise without port":  {"advertise": []any{"192.0.2.1"}},
		"advertise by name":       {"advertise": []any{"example.org:1"}},
		"advertise for several":   {"advertise": []any{"192.0.2.1:1"}, "replicas": 2},
		"pod CIDR that is none":   {"podCIDRs": []any{"10.0.0.0"}},
		"STUN without port":       {"stun": []any{"stun.example.org"}},
		"five STUN servers":       {"stun": []any{"a:1", "b:1", "c:1", "d:1", "e:1"}},
		"little memory":           {"memory": "32Mi"},
		"memory in decimals":      {"memory": "1.5Gi"},
		"request beyond memory":   {"memory": "128Mi", "requestMemory": "129Mi"},
		"CPU in decimals":         {"requestCPU": "0.5"},
		"metrics without policy":  {"networkPolicy": false, "metricsFrom": []any{"a"}},
		"limit without value":     {"limits": []any{"peers"}},
		"log level":               {"logLevel": "loud"},
		"domain":                  {"dnsDomain": "Not A Domain"},
	} {
		if _, err := renderChart(t, values); err == nil {
			t.Errorf("%s: rendered", name)
		}
	}
}
