//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// guild opens the market's like where Pod Security "restricted" is enforced, with
// three stalls, for the time of the test. alice may steer there, pods as well as
// Services.
func guild(t testing.TB) {
	t.Helper()
	text := strings.NewReplacer("market", "guild", "enforce: privileged", "enforce: restricted",
		"runAsUser: 65532", "runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, runAsUser: 65532").Replace(marketYAML)
	file := filepath.Join(t.TempDir(), "guild.yaml")
	write(t, file, text)
	closed := func() { kubectl("delete", "namespace", "guild", "--ignore-not-found").must(t) }
	closed() // by a run that was killed
	t.Cleanup(closed)
	kubectl("apply", "-f", file).must(t)
	for _, role := range []string{"lab-developer", "podnet-steer"} {
		kubectl("create", "rolebinding", "guild-"+role, "-n", "guild", "--clusterrole="+role, "--user=alice").must(t)
	}
	kubectl("create", "role", "-n", "guild", "patch-stall", "--verb=patch", "--resource=services", "--resource-name=stall").must(t)
	kubectl("create", "rolebinding", "-n", "guild", "patch-stall", "--role=patch-stall", "--user=alice").must(t)
	kubectl("rollout", "status", "-n", "guild", "deployment/stall", "--timeout=90s").must(t)
	// Slices follow in their own time, and a story begins with how they are.
	eventually(t, time.Minute, "three stalls in the Service's slices", func() error {
		ready := kubectl("get", "endpointslices", "-n", "guild", "-l", "kubernetes.io/service-name=stall",
			"-o", "jsonpath={.items[*].endpoints[*].conditions.ready}").must(t)
		if ready != "true true true" {
			return fmt.Errorf("%q", ready)
		}
		return nil
	})
}

// services are all Services and EndpointSlices of the guild, but for what the API
// server and Kubernetes' controllers count up with each write, and for the order in
// which these put pods into a slice.
func services(t testing.TB) string {
	t.Helper()
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(kubectl("get", "services,endpointslices", "-n", "guild", "-o", "json").must(t)), &list); err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Items {
		meta := o["metadata"].(map[string]any)
		for _, counted := range []string{"resourceVersion", "managedFields", "generation"} {
			delete(meta, counted)
		}
		if notes, ok := meta["annotations"].(map[string]any); ok {
			if delete(notes, "endpoints.kubernetes.io/last-change-trigger-time"); len(notes) == 0 {
				delete(meta, "annotations")
			}
		}
		if pods, ok := o["endpoints"].([]any); ok {
			slices.SortFunc(pods, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	text, err := json.MarshalIndent(list.Items, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// crowd is who comes without the header while something changes.
func (m machine) crowd(t testing.TB, url string) *watcher {
	t.Helper()
	return m.start(t, "customers", url, "6000", "8", "", "laptop")
}

// TestSteerByService steers a Service whose pods take no agent.
func TestSteerByService(t *testing.T) {
	calm(t)
	guild(t)
	alice.connect(t, "-n", "guild")
	alice.serveLocally(t, 3000, "laptop")
	ip := clusterIP(t, "guild", "stall")
	url := "http://" + ip
	before := services(t)
	header := []string{"--header", "x-user: alice"}
	steer := func(target ...string) command {
		return alice.podnet(append(append([]string{"steer", "--detach", "-n", "guild"}, target...), header...)...)
	}
	t.Cleanup(func() { alice.podnet("steer", "stop", "--all").try(t) })
	nothingLeft := func(t testing.TB) {
		t.Helper()
		if left := kubectl("get", "steeringrules", "-A", "-o", "name").must(t); left != "" {
			t.Errorf("rules are left: %s", left)
		}
		if left := kubectl("get", "pods", "-n", "guild", "-o", "jsonpath={.items[*].spec.ephemeralContainers}").must(t); left != "" {
			t.Errorf("containers are left: %s", left)
		}
	}

	r := steer("deploy/stall", "8080:3000").mustFail(t)
	want(t, r.stderr, "violates PodSecurity", "NET_ADMIN", "--via service")
	nothingLeft(t)

	r = steer("svc/stall", "http:3000", "--via", "service").mustFail(t)
	_, grant, told := strings.Cut(r.stderr, "kubectl -n guild create rolebinding ")
	if !told {
		t.Fatalf("no command for an administrator in:\n%s", r.stderr)
	}
	eventually(t, 10*time.Second, "nothing is left", func() error { return same(before, services(t)) })
	grant, _, _ = strings.Cut(grant, "\n")
	kubectl(append([]string{"-n", "guild", "create", "rolebinding"}, strings.Fields(strings.TrimRight(grant, ". "))...)...).must(t)

	memory := func() string {
		return host("sh", "-c", "grep VmRSS /proc/$(pgrep -xo podnet-gateway)/status | tr -s '\\t ' ' '").must(t)
	}
	report(t, "gateway before it steers a Service", memory())
	start := time.Now()
	comes := node1.crowd(t, url)
	out := steer("svc/stall", "http:3000", "--via", "service").must(t)
	report(t, "steer by Service, from the command to ready", time.Since(start).Round(10*time.Millisecond))
	want(t, out, "stall")
	all := comes.custom(t, 2*time.Minute)
	report(t, "requests without the header while the rule came", all)
	all.exact(t, 0, 6000)

	got := customers(t, url, 500, 8, "x-user: alice", "laptop")
	report(t, "500 requests with the header and 500 without, by Service", got)
	got.exact(t, 500, 500)
	report(t, "gateway that has steered a Service", memory())
	want(t, alice.podnet("steer", "list").must(t), "svc/stall", "service")
	want(t, kubectl("get", "steeringrules", "-A").must(t), "alice", "stall", "Accepted", "True")
	want(t, kubectl("get", "steeringrules", "-n", "guild", "-o", "jsonpath={.items[0].status.selector}").must(t), `"app":"stall"`)
	if got := node1.cmd("bash", "-c", "exec 3<>/dev/tcp/"+ip+"/5432 && echo hi >&3 && timeout 5 head -c 2 <&3").must(t); got != "hi" {
		t.Errorf("the port that is not steered says %q", got)
	}
	if got := alice.cmd("curl", "-sS", "--max-time", "5", "-H", "x-user: alice", "http://stall.guild").must(t); got != "hello from laptop" {
		t.Errorf("alice's own request: %s", got)
	}

	start = time.Now()
	goes := node1.crowd(t, url)
	alice.podnet("steer", "stop", "--all").must(t)
	eventually(t, 10*time.Second, "Services and slices as before", func() error { return same(before, services(t)) })
	report(t, "Services and slices as before, after stop", time.Since(start).Round(10*time.Millisecond))
	all = goes.custom(t, 2*time.Minute)
	report(t, "requests without the header while the rule went", all)
	all.exact(t, 0, 6000)
	customers(t, url, 100, 4, "", "laptop").exact(t, 0, 100)
	nothingLeft(t)

	t.Run("kill -9 of the laptop's daemon", func(t *testing.T) {
		steerGuild(t, url)
		alice.cmd("kill", "-9", alice.daemon(t)).must(t)
		took := eventually(t, 15*time.Second, "the app answers", func() error { return answers(t, url, byApp) })
		report(t, "the app answers after kill -9 of the laptop's daemon, by Service (within 5 s)", took.Round(10*time.Millisecond))
		if !within(took, 5*time.Second) {
			t.Errorf("after %v", took)
		}
		start := time.Now()
		kubectl("delete", "steeringrules", "-n", "guild", "--all").must(t) // its lease would last minutes
		eventually(t, 15*time.Second, "Services and slices as before", func() error { return same(before, services(t)) })
		report(t, "Services and slices as before, after the rule was deleted", time.Since(start).Round(10*time.Millisecond))
		alice.podnet("disconnect", "--all").try(t)
	})
	const gateway = "podnet-gateway-0"
	for what, happens := range map[string]func(testing.TB){
		"kill -9 of the gateway": killGateway,
		"the gateway's pod deleted by force": func(t testing.TB) {
			kubectl("delete", "pod", "-n", "podnet-system", gateway, "--force", "--grace-period=0").must(t)
		},
		"the gateway's pod deleted": func(t testing.TB) { kubectl("delete", "pod", "-n", "podnet-system", gateway).must(t) },
	} {
		t.Run(what, func(t *testing.T) { surviveGuild(t, url, before, what, gateway, happens) })
	}
}

// TestSteerByServiceWithTwoGateways has the one that leads go, and the other.
func TestSteerByServiceWithTwoGateways(t *testing.T) {
	calm(t)
	installed(t, append([]string{"--replicas", "2"}, usual...)...)
	bothGateways(t)
	guild(t)
	letGateways(t)
	alice.serveLocally(t, 3000, "laptop")
	url, before := "http://"+clusterIP(t, "guild", "stall"), services(t)
	witnesses := func(t testing.TB) {
		if !t.Failed() {
			return
		}
		t.Logf("rules and Services:\n%s", kubectl("get", "steeringrules,services,endpointslices", "-n", "guild", "-o", "yaml").try(t).stdout)
		t.Logf("gateways:\n%s", kubectl("get", "pods,endpointslices", "-n", "podnet-system", "-o", "wide").try(t).stdout)
		for _, name := range gateways {
			t.Logf("%s:\n%s", name, kubectl("logs", "-n", "podnet-system", name, "--tail=60").try(t).stdout)
		}
	}
	for _, c := range []struct {
		what  string
		which func() string
		flags []string
	}{
		{"the leading gateway's pod deleted by force", func() string { return leader(t) }, []string{"--force", "--grace-period=0"}},
		{"the leading gateway's pod deleted", func() string { return leader(t) }, nil},
		{"the other gateway's pod deleted by force", func() string { return otherGateway(leader(t)) }, []string{"--force", "--grace-period=0"}},
	} {
		which := c.which()
		t.Run(c.what, func(t *testing.T) {
			t.Cleanup(func() { witnesses(t) })
			surviveGuild(t, url, before, c.what+", of two", which, func(t testing.TB) {
				kubectl(append([]string{"delete", "pod", "-n", "podnet-system", which}, c.flags...)...).must(t)
			})
		})
	}
}

// TestUninstallLetsServicesGo uninstalls podnet while a Service is steered.
func TestUninstallLetsServicesGo(t *testing.T) {
	calm(t)
	installed(t, append([]string{"--replicas", "2"}, usual...)...)
	bothGateways(t)
	guild(t)
	letGateways(t)
	alice.serveLocally(t, 3000, "laptop")
	url, before := "http://"+clusterIP(t, "guild", "stall"), services(t)
	steerGuild(t, url)
	news := node1.start(t, "customers", url, "6000", "8", "", "nobody")
	start := time.Now()
	admin.podnet("uninstall").must(t)
	report(t, "uninstall, two gateways and a steered Service", time.Since(start).Round(10*time.Millisecond))
	if err := same(before, services(t)); err != nil {
		t.Errorf("it is left as it was steered: %v", err)
	}
	if err := answers(t, url, byApp); err != nil {
		t.Error(err)
	}
	report(t, "requests meanwhile", news.custom(t, 2*time.Minute))
}

// letGateways lets the gateways steer the guild's Services.
func letGateways(t testing.TB) {
	t.Helper()
	kubectl("-n", "guild", "create", "rolebinding", "podnet-services", "--clusterrole=podnet-gateway-services", "--serviceaccount=podnet-system:gateway").must(t)
}

// steerGuild has all that reaches the guild's Service come to alice, for the time of
// the test.
func steerGuild(t testing.TB, url string) {
	t.Helper()
	alice.connect(t, "-n", "guild")
	alice.podnet("steer", "--detach", "-n", "guild", "svc/stall", "http:3000", "--via", "service").must(t)
	t.Cleanup(func() { alice.podnet("steer", "stop", "--all").try(t) })
	eventually(t, 10*time.Second, "the laptop answers", func() error { return answers(t, url, byLaptop) })
}

// surviveGuild steers the Service, has something happen to a gateway, and prints for
// how long new connections failed. In the end all is as before.
func surviveGuild(t testing.TB, url, before, what, gateway string, happens func(testing.TB)) {
	t.Helper()
	steerGuild(t, url)
	incarnation := func() string {
		return kubectl("get", "pod", "-n", "podnet-system", gateway, "--ignore-not-found",
			"-o", `jsonpath={.status.containerStatuses[0].containerID} {.status.conditions[?(@.type=="Ready")].status}`).must(t)
	}
	old := incarnation()
	news := node1.start(t, "fetch", url)
	eventually(t, 5*time.Second, "there is news", func() error {
		if _, ok := news.last(works); !ok {
			return fmt.Errorf("none")
		}
		return nil
	})
	began := time.Now()
	happens(t)
	eventually(t, time.Minute, "the gateway is another one", func() error {
		if now := incarnation(); now == old || !strings.HasSuffix(now, " True") {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
	eventually(t, time.Minute, "the laptop answers again", func() error { return answers(t, url, byLaptop) })
	report(t, "the laptop answers again after "+what+", by Service", time.Since(began).Round(10*time.Millisecond))
	news.stop()
	failed, _ := gap(news, began)
	report(t, "new connections failed after "+what+", by Service, for", failed.Round(10*time.Millisecond))
	if failed > time.Minute {
		t.Errorf("they still do:\n%s", news.diary())
	}
	start := time.Now()
	alice.podnet("steer", "stop", "--all").must(t)
	eventually(t, 15*time.Second, "Services and slices as before", func() error { return same(before, services(t)) })
	report(t, "Services and slices as before, after "+what, time.Since(start).Round(10*time.Millisecond))
	if err := answers(t, url, byApp); err != nil {
		t.Error(err)
	}
	alice.podnet("disconnect", "--all").try(t)
}
