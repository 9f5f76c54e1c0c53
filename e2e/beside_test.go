//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBesideTheCluster gives the cluster a network that laptops cannot reach, as a
// cloud's is, and a domain for it. alice is refused both until an administrator has
// run what the refusal says, and loses them with the permission. She may have them at
// virtual addresses as well.
func TestBesideTheCluster(t *testing.T) {
	const route, domain, database = "10.20.0.0/16", "corp.internal", "10.20.0.5"
	node := machine{name: "node1"}
	node.sh("ip link add vpc0 type veth peer name vpc1 && ip link set vpc0 up && ip link set vpc1 up && ip addr add " + database + "/24 dev vpc0").must(t)
	t.Cleanup(func() { node.sh("ip link del vpc0").must(t) })
	node.start(t, "web", database+":8080", "from the database")
	clusterNames(t, domain+":53 20.10.in-addr.arpa:53", "hosts {\n "+database+" db."+domain+"\n }")

	connect := alice.podnet("connect", "--wait", "-n", "shop", "--lease", "60s", "--also-route", route, "--also-domain", domain, "--never-route", "10.20.7.0/24")
	t.Cleanup(func() { alice.podnet("disconnect", "--all").try(t) })
	const mayRoute, mayAsk = "also-route-10-20-0-0-16", "also-domain-corp-internal"
	if n := granted(t, connect, mayRoute, mayAsk); n != 2 {
		t.Errorf("%d permissions were asked for", n)
	}

	get := func(m machine, url string) error {
		if r := m.cmd("curl", "-sS", "--max-time", "3", url).try(t); r.code != 0 || !strings.Contains(r.stdout, "from the database") {
			return fmt.Errorf("%s: %s%s", url, r.stdout, r.stderr)
		}
		return nil
	}
	for _, url := range []string{"http://" + database + ":8080", "http://db." + domain + ":8080"} {
		// The cluster's DNS server has just started anew.
		took := eventually(t, 20*time.Second, "the database answers", func() error { return get(alice, url) })
		report(t, url+" answers", took.Round(time.Millisecond))
		if err := get(bob, url); err == nil {
			t.Errorf("bob reaches %s without podnet", url)
		}
	}
	alice.cmd("ping", "-c", "1", "-W", "3", database).must(t)
	// That server says of no IPv6 address that there is none, and not for how long.
	want(t, alice.cmd("dig", "+tries=1", "+time=1", "db."+domain, "AAAA").must(t), "status: NOERROR")
	want(t, alice.cmd("dig", "+short", "-x", database).must(t), "db."+domain+".")
	want(t, alice.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.")
	want(t, alice.cmd("ip", "route", "get", database).must(t), "podnet0")
	if r := alice.cmd("ip", "route", "get", "10.20.7.1").try(t); strings.Contains(r.stdout, "podnet0") {
		t.Errorf("what is never to be routed goes %s", r.stdout)
	}
	alice.cmd("curl", "-sS", "--max-time", "5", "http://web.shop").must(t)

	want(t, bob.podnet("connect", "--wait", "-n", "shop", "--also-route", route).mustFail(t).stderr, "bob may not also-route "+route)

	alice.podnet("disconnect").must(t)
	alice.podnet("connect", "--wait", "-n", "shop", "--addresses", "virtual", "--also-route", route, "--also-domain", domain).must(t)
	virtual := alice.virtual(t, database)
	want(t, alice.cmd("dig", "+short", "db."+domain).must(t), virtual)
	want(t, alice.cmd("dig", "+short", "-x", virtual).must(t), "db."+domain+".")
	for _, url := range []string{"http://" + virtual + ":8080", "http://db." + domain + ":8080"} {
		if err := get(alice, url); err != nil {
			t.Errorf("at a virtual address: %v", err)
		}
	}
	if r := alice.cmd("ip", "route", "get", database).try(t); strings.Contains(r.stdout, "podnet0") {
		t.Errorf("the real address goes %s", r.stdout)
	}
	alice.podnet("disconnect").must(t)
	connect.must(t)

	kubectl("delete", "rolebinding", "-n", "podnet-system", mayRoute+"-alice").must(t)
	took := eventually(t, 2*time.Minute, "the database is out of reach", func() error {
		if r := alice.cmd("curl", "-sS", "--max-time", "1", "http://"+database+":8080").try(t); r.code == 0 {
			return errors.New("it still answers")
		}
		return nil
	})
	report(t, "also-route taken away to out of reach (within the lease, 60 s here)", took.Round(time.Second))
	eventually(t, 10*time.Second, "status says why", func() error {
		if r := alice.podnet("status").try(t); !strings.Contains(r.stdout, "may not also-route "+route) {
			return errors.New(r.stdout)
		}
		return nil
	})
}

// granted has an administrator run what each refusal of a connect of alice's says,
// until she may. It returns how often that was, and takes the roles back in the end,
// which are called so.
func granted(t *testing.T, connect command, roles ...string) int {
	t.Helper()
	t.Cleanup(func() {
		for _, role := range roles {
			kubectl("delete", "-n", "podnet-system", "--ignore-not-found", "role/"+role, "rolebinding/"+role+"-alice").must(t)
		}
	})
	// Each names one that is missing, and the commands that give it.
	asked := map[string]bool{}
	eventually(t, 30*time.Second, "alice may", func() error {
		r := connect.try(t)
		if r.code == 0 {
			return nil
		}
		explained(t, r, "alice may not also-")
		_, grant, _ := strings.Cut(r.stderr, "ask an administrator for: ")
		grant, _, _ = strings.Cut(grant, "\n") // behind it the log is named
		if grant = strings.TrimSpace(grant); grant == "" || r.code != 4 {
			t.Fatalf("exit %d: %s", r.code, r.stderr)
		}
		if !asked[grant] {
			asked[grant] = true
			admin.sh(grant).must(t)
		}
		return errors.New(r.stderr)
	})
	return len(asked)
}

// clusterNames has the cluster's own DNS server answer for zones by a plugin of its
// own, until the test ends.
func clusterNames(t *testing.T, zones, plugin string) {
	t.Helper()
	before := kubectl("get", "configmap", "-n", "kube-system", "coredns", "-o", "jsonpath={.data.Corefile}").must(t)
	set := func(corefile string) {
		patch, err := json.Marshal(map[string]any{"data": map[string]string{"Corefile": corefile}})
		if err != nil {
			t.Fatal(err)
		}
		kubectl("patch", "configmap", "-n", "kube-system", "coredns", "--type=merge", "-p", string(patch)).must(t)
		kubectl("rollout", "restart", "-n", "kube-system", "deployment/coredns").must(t)
		kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=60s").must(t)
	}
	t.Cleanup(func() { set(before + "\n") })
	set(fmt.Sprintf("%s {\n %s\n}\n%s\n", zones, plugin, before))
}
