package deploy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func render(t *testing.T, o Options) []*unstructured.Unstructured {
	t.Helper()
	objects, err := Render(o)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = "testdata/" + file
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); go test ./deploy -update rewrites it:\n%s", file, d)
	}
}

func text(t *testing.T, objects []*unstructured.Unstructured) string {
	t.Helper()
	var out bytes.Buffer
	for _, u := range objects {
		if u.GetKind() == "CustomResourceDefinition" {
			fmt.Fprintf(&out, "--- # CustomResourceDefinition %s, from manifests/crds\n", u.GetName())
			continue
		}
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "---\n%s", b)
	}
	return out.String()
}

func TestRenderedText(t *testing.T) {
	golden(t, "default.yaml", text(t, render(t, Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1"})))
	golden(t, "everything.yaml", text(t, render(t, Options{
		Namespace: "tunnels", Image: "example.org/gw@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		AgentImage: "example.org/agent@sha256:1111111111111111111111111111111111111111111111111111111111111111",
		PullPolicy: "Never", ImagePullSecrets: []string{"registry"}, Replicas: 3, NodePort: 31820,
		PodCIDRs: []string{"10.0.0.0/8", "fd00:10::/48"}, STUN: []string{"stun.example.org:3478", "[2001:db8::1]:3478"}, DNSDomain: "k8s.example.org", Memory: "1Gi", Limits: []string{"user-connections=20k", "user-bytes=50Mi"}, UserMetrics: true, MetricsFrom: []string{"monitoring"}, LogLevel: "debug", Users: []string{`o'hara "x"`}, Groups: []string{"dev"},
	})))
}

func TestRenderedForOneNamespace(t *testing.T) {
	o := Options{Namespace: "shop", Namespaced: true, Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", NodePort: 31820, ServiceCIDRs: []string{"10.96.0.0/12"}}
	objects := render(t, o)
	golden(t, "namespaced.yaml", text(t, objects))
	for _, u := range objects {
		// What the role edit may write in its namespace, as Kubernetes makes it.
		if k := u.GetKind(); k != "Service" && k != "PodDisruptionBudget" && k != "NetworkPolicy" && k != "StatefulSet" || u.GetNamespace() != "shop" {
			t.Errorf("%s %s/%s: the role edit does not allow it", k, u.GetNamespace(), u.GetName())
		}
		if u.GetLabels()[LabelMode] != ModeNamespace {
			t.Errorf("%s %s is not marked", u.GetKind(), u.GetName())
		}
	}
	set := objects[len(objects)-1]
	for _, field := range [][]string{{"serviceAccountName"}, {"volumes"}} {
		if _, has, _ := unstructured.NestedFieldNoCopy(set.Object, append([]string{"spec", "template", "spec"}, field...)...); has {
			t.Errorf("the gateway of one namespace has %v: it is to have no credentials", field)
		}
	}
	if mounted, has, _ := unstructured.NestedBool(set.Object, "spec", "template", "spec", "automountServiceAccountToken"); !has || mounted {
		t.Error("a token is mounted")
	}
}

// Whoever adds a verb to a role changes this golden and answers for it.
func TestVerbs(t *testing.T) {
	var lines []string
	for _, u := range render(t, Options{Image: "x", AgentImage: "y"}) {
		if k := u.GetKind(); k != "Role" && k != "ClusterRole" {
			continue
		}
		var role rbacv1.Role // a ClusterRole's rules have the same shape
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			if len(rule.NonResourceURLs) > 0 {
				t.Errorf("%s has nonResourceURLs", u.GetName())
			}
			for _, g := range rule.APIGroups {
				for _, r := range rule.Resources {
					names := ""
					if len(rule.ResourceNames) > 0 {
						names = " named " + strings.Join(rule.ResourceNames, ",")
					}
					lines = append(lines, fmt.Sprintf("%s %s: %s.%s%s: %s", u.GetKind(), u.GetName(), r, g, names, strings.Join(rule.Verbs, " ")))
					if strings.HasPrefix(u.GetName(), "podnet-gateway") {
						forbidGateway(t, g, r, rule.Verbs)
					}
				}
			}
		}
	}
	sort.Strings(lines)
	golden(t, "verbs.txt", strings.Join(lines, "\n")+"\n")
}

// forbidGateway names what the gateway must never be able to do, whatever a
// golden says.
func forbidGateway(t *testing.T, group, resource string, verbs []string) {
	t.Helper()
	for _, bad := range []string{"*", "secrets", "configmaps", "pods", "pods/exec", "pods/portforward", "pods/ephemeralcontainers", "tokenreviews", "serviceaccounts/token", "users", "groups"} {
		if resource == bad || group == "*" {
			t.Errorf("the gateway may touch %s.%s", resource, group)
		}
	}
	for _, bad := range []string{"*", "impersonate", "escalate", "bind", "deletecollection"} {
		if slices.Contains(verbs, bad) {
			t.Errorf("the gateway may %s %s", bad, resource)
		}
	}
}

func TestOrderAndLabels(t *testing.T) {
	rank := map[string]int{
		"Namespace": 0, "ConfigMap": 1, "CustomResourceDefinition": 1, "ServiceAccount": 2, "ClusterRole": 2, "ClusterRoleBinding": 2, "Role": 2, "RoleBinding": 2,
		"ValidatingAdmissionPolicy": 3, "ValidatingAdmissionPolicyBinding": 3, "Service": 4, "PodDisruptionBudget": 4, "NetworkPolicy": 4, "StatefulSet": 5,
	}
	last := 0
	seen := map[string]bool{}
	for _, u := range render(t, Options{Image: "x", AgentImage: "y", UDPService: "LoadBalancer", Replicas: 2, Groups: []string{"dev"}}) {
		r, known := rank[u.GetKind()]
		if !known {
			t.Errorf("unexpected kind %s", u.GetKind())
		}
		if r < last {
			t.Errorf("%s %s comes too late", u.GetKind(), u.GetName())
		}
		last = r
		id := u.GetKind() + "/" + u.GetNamespace() + "/" + u.GetName()
		if seen[id] {
			t.Errorf("%s twice", id)
		}
		seen[id] = true
		if u.GetLabels()["app.kubernetes.io/part-of"] != "podnet" {
			t.Errorf("%s has no labels", id)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no image":                 {},
		"image with a line break":  {Image: "x\nfoo: bar", AgentImage: "y"},
		"no image of the agent":    {Image: "x"},
		"namespace with a quote":   {Image: "x", AgentImage: "y", Namespace: "a'b"},
		"pull policy":              {Image: "x", AgentImage: "y", PullPolicy: "never"},
		"too many replicas":        {Image: "x", AgentImage: "y", Replicas: 10},
		"node port of a balancer":  {Image: "x", AgentImage: "y", UDPService: "LoadBalancer", NodePort: 30000},
		"node ports beyond 65535":  {Image: "x", AgentImage: "y", NodePort: 65535, Replicas: 2},
		"advertise without port":   {Image: "x", AgentImage: "y", Advertise: []string{"192.0.2.1"}},
		"advertise by name":        {Image: "x", AgentImage: "y", Advertise: []string{"example.org:1"}},
		"advertise for several":    {Image: "x", AgentImage: "y", Advertise: []string{"192.0.2.1:1"}, Replicas: 2},
		"pod CIDR that is none":    {Image: "x", AgentImage: "y", PodCIDRs: []string{"10.0.0.0"}},
		"pod CIDR with host bits":  {Image: "x", AgentImage: "y", PodCIDRs: []string{"10.0.0.1/16"}},
		"default route":            {Image: "x", AgentImage: "y", PodCIDRs: []string{"0.0.0.0/0"}},
		"IPv6 default route":       {Image: "x", AgentImage: "y", PodCIDRs: []string{"::/0"}},
		"broader than /8":          {Image: "x", AgentImage: "y", PodCIDRs: []string{"10.0.0.0/7"}},
		"broader than /32":         {Image: "x", AgentImage: "y", PodCIDRs: []string{"fd00::/31"}},
		"loopback":                 {Image: "x", AgentImage: "y", PodCIDRs: []string{"127.1.0.0/16"}},
		"around link-local":        {Image: "x", AgentImage: "y", PodCIDRs: []string{"169.0.0.0/8"}},
		"IPv6 link-local":          {Image: "x", AgentImage: "y", PodCIDRs: []string{"fe80::/64"}},
		"multicast":                {Image: "x", AgentImage: "y", PodCIDRs: []string{"239.0.0.0/8"}},
		"IPv4 in IPv6 form":        {Image: "x", AgentImage: "y", PodCIDRs: []string{"::ffff:10.0.0.0/112"}},
		"STUN server without port": {Image: "x", AgentImage: "y", STUN: []string{"stun.example.org"}},
		"STUN server on port 0":    {Image: "x", AgentImage: "y", STUN: []string{"stun.example.org:0"}},
		"STUN server with a space": {Image: "x", AgentImage: "y", STUN: []string{"a b:3478"}},
		"five STUN servers":        {Image: "x", AgentImage: "y", STUN: []string{"a:1", "b:1", "c:1", "d:1", "e:1"}},
		"memory that is too small": {Image: "x", AgentImage: "y", Memory: "1Mi"},
		"memory that is nonsense":  {Image: "x", AgentImage: "y", Memory: "lots"},
		"request beyond memory":    {Image: "x", AgentImage: "y", Memory: "128Mi", RequestMemory: "129Mi"},
		"request that is nonsense": {Image: "x", AgentImage: "y", RequestMemory: "lots"},
		"request of no CPU":        {Image: "x", AgentImage: "y", RequestCPU: "0"},
		"CPU that is nonsense":     {Image: "x", AgentImage: "y", RequestCPU: "fast"},
		"metrics from a nonsense":  {Image: "x", AgentImage: "y", MetricsFrom: []string{"a b"}},
		"metrics without policy":   {Image: "x", AgentImage: "y", MetricsFrom: []string{"a"}, NoNetworkPolicy: true},
		"limit without value":      {Image: "x", AgentImage: "y", Limits: []string{"peers"}},
		"limit that is unknown":    {Image: "x", AgentImage: "y", Limits: []string{"pears=1"}},
		"limit that is nonsense":   {Image: "x", AgentImage: "y", Limits: []string{"peers=0"}},
		"log level":                {Image: "x", AgentImage: "y", LogLevel: "loud"},
		"domain":                   {Image: "x", AgentImage: "y", DNSDomain: "a b"},

		"service CIDR for the whole cluster": {Image: "x", AgentImage: "y", ServiceCIDRs: []string{"10.96.0.0/12"}},
		"service CIDR with host bits":        {Image: "x", AgentImage: "y", Namespaced: true, ServiceCIDRs: []string{"10.96.0.1/12"}},
		"replicas for one namespace":         {Image: "x", AgentImage: "y", Namespaced: true, Replicas: 2},
		"a balancer for one namespace":       {Image: "x", AgentImage: "y", Namespaced: true, UDPService: "LoadBalancer"},
		"any node port for one namespace":    {Image: "x", AgentImage: "y", Namespaced: true, UDPService: "NodePort"},
		"STUN for one namespace":             {Image: "x", AgentImage: "y", Namespaced: true, STUN: []string{"a:1"}},
		"metrics for one namespace":          {Image: "x", AgentImage: "y", Namespaced: true, UserMetrics: true},
		"users for one namespace":            {Image: "x", AgentImage: "y", Namespaced: true, Users: []string{"alice"}},
	} {
		if _, err := Render(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// resources are a gateway's.
func resources(t *testing.T, o Options) (got corev1.ResourceRequirements) {
	t.Helper()
	o.Image, o.AgentImage = "x", "y"
	all := render(t, o)
	var set appsv1.StatefulSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(all[len(all)-1].Object, &set); err != nil {
		t.Fatal(err)
	}
	return set.Spec.Template.Spec.Containers[0].Resources
}

// TestRequestsAreThoseOfTheGuide: each line of docs/install.md's table can be had, and
// that of 100 laptops is what there is unless told otherwise.
func TestRequestsAreThoseOfTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile("(?m)^\\| ([0-9,]+) \\|.*\\| `([^`]+)` \\| `([^`]+)` \\| `([^`]+)` \\|$").FindAllStringSubmatch(string(guide), -1)
	if len(lines) != 3 {
		t.Fatalf("%d lines, want those of 10, 100 and 1,000 laptops", len(lines))
	}
	for _, l := range lines {
		o := Options{RequestCPU: l[2], RequestMemory: l[3], Memory: l[4]}
		got := resources(t, o)
		if cpu, request, most := got.Requests.Cpu(), got.Requests.Memory(), got.Limits.Memory(); cpu.String() != l[2] || request.String() != l[3] || most.String() != l[4] {
			t.Errorf("%s laptops: CPU %v, memory %v of %v, want %v", l[1], cpu, request, most, l[2:])
		}
		if d := cmp.Diff(got, resources(t, Options{})); l[1] == "100" && d != "" {
			t.Errorf("what is requested is not what 100 laptops take:\n%s", d)
		}
	}
	if got := resources(t, Options{Memory: "128Mi"}); got.Requests.Memory().Cmp(*got.Limits.Memory()) != 0 {
		t.Errorf("of 128Mi are requested %v", got.Requests.Memory())
	}
}

// The NetworkPolicy is left out on demand, and says nothing about what the gateway
// calls, so that it breaks nothing.
func TestNetworkPolicy(t *testing.T) {
	find := func(o Options) *unstructured.Unstructured {
		o.Image, o.AgentImage = "x", "y"
		for _, u := range render(t, o) {
			if u.GetKind() == "NetworkPolicy" {
				return u
			}
		}
		return nil
	}
	if u := find(Options{NoNetworkPolicy: true}); u != nil {
		t.Error("it is there all the same")
	}
	u := find(Options{MetricsFrom: []string{"monitoring"}})
	if u == nil {
		t.Fatal("there is none")
	}
	if types, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "policyTypes"); !slices.Equal(types, []string{"Ingress"}) {
		t.Errorf("it is about %v", types)
	}
	rules, _, _ := unstructured.NestedSlice(u.Object, "spec", "ingress")
	if len(rules) != 2 || rules[0].(map[string]any)["from"] != nil || len(rules[1].(map[string]any)["from"].([]any)) != 1 {
		t.Errorf("rules: %v", rules)
	}
}

func TestLabelValue(t *testing.T) {
	for in, want := range map[string]string{"dev": "dev", "v1.2.0+build.7": "v1.2.0_build.7", "-x-": "x", strings.Repeat("a", 70): strings.Repeat("a", 63)} {
		if got := labelValue(in); got != want {
			t.Errorf("labelValue(%q) = %q, want %q", in, got, want)
		}
	}
}
