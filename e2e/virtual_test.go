//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// virtual is the address at which a connected machine sees one of the cluster.
func (m machine) virtual(t testing.TB, real string) string {
	t.Helper()
	v := m.podnet("map", real).must(t)
	if v == real {
		t.Fatalf("%s stands for itself", real)
	}
	return v
}

// names is what dig finds, a line each.
func (m machine) names(t testing.TB, question ...string) []string {
	t.Helper()
	return strings.Fields(m.cmd(append([]string{"dig", "+short"}, question...)...).must(t))
}

// TestVirtualAddresses has alice use the cluster at addresses that are not its own:
// names, TCP, UDP, ICMP, both families; and what she may not reach she does not reach
// there. It outlives the gateway.
func TestVirtualAddresses(t *testing.T) {
	alice.connect(t, "-n", "shop", "--addresses", "virtual")
	if a := alice.connection(t).Addresses; a.Mode != "virtual" || len(a.Map) < 2 {
		t.Fatalf("addresses: %+v", a)
	}
	web := clusterIP(t, "shop", "web")
	use := func() {
		t.Helper()
		want(t, alice.cmd("getent", "ahosts", "web.shop").must(t), alice.virtual(t, web))
		want(t, alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "hello from web")
		if got := alice.sh("echo ahoy | socat -T 3 - UDP:web.shop:5353").must(t); got != "ahoy" {
			t.Errorf("the UDP echo said %q", got)
		}
	}
	use()

	db := strings.Fields(kubectl("get", "pod", "-n", "shop", "db-0", "-o", "jsonpath={.status.podIPs[*].ip}").must(t))
	if len(db) != 2 {
		t.Fatalf("db-0 is at %v", db)
	}
	const name = "db-0.db.shop.svc.cluster.local"
	for i, kind := range []string{"A", "AAAA"} {
		v := alice.virtual(t, db[i])
		if got := alice.names(t, name, kind); len(got) != 1 || got[0] != v {
			t.Errorf("%s of %s: %v, want %s", kind, name, got, v)
		}
		if got := alice.names(t, "-x", v); len(got) != 1 || got[0] != name+"." {
			t.Errorf("the name of %s: %v", v, got)
		}
		alice.cmd("ping", "-c", "2", "-W", "3", v).must(t)
		at := v
		if kind == "AAAA" {
			at = "[" + v + "]"
		}
		want(t, alice.cmd("curl", "-sS", "-g", "--max-time", "10", "http://"+at+":8080").must(t), "db-0")
		want(t, alice.role("refused", at+":9").must(t), "connection refused")
		want(t, alice.sh("echo ahoy | socat -T 3 - UDP:"+at+":9 2>&1; true").must(t), "refused") // by an ICMP error
	}
	srv := alice.cmd("dig", "+noall", "+answer", "+additional", "_postgres._tcp.db.shop.svc.cluster.local", "SRV").must(t)
	want(t, srv, "5432 "+name+".", alice.virtual(t, db[0]), alice.virtual(t, db[1]))
	if strings.Contains(srv, db[0]) || strings.Contains(srv, db[1]) {
		t.Errorf("a real address with the SRV record:\n%s", srv)
	}
	for _, ip := range alice.names(t, "web-headless.shop.svc.cluster.local") {
		want(t, alice.cmd("curl", "-sS", "--max-time", "10", "http://"+ip+":8080").must(t), "hello from web")
	}

	// A virtual address opens nothing.
	for what, real := range map[string]string{"pay": clusterIP(t, "pay", "till"), "the API server": clusterIP(t, "default", "kubernetes")} {
		for _, port := range []string{"80", "443", "6443", "10250"} {
			at := alice.virtual(t, real) + ":" + port
			if r := alice.cmd("curl", "-ksS", "--max-time", "2", "http://"+at).try(t); r.code == 0 {
				t.Errorf("%s can be reached at %s: %s", what, at, r.stdout)
			}
		}
	}
	// Nor does one that stands for nobody, and at the cluster's own addresses, which a
	// page could have from anywhere, nothing of the cluster's answers.
	for what, at := range map[string]string{
		"nobody's virtual": alice.virtual(t, "10.96.251.251") + ":80", "a Service's own": web + ":80", "a pod's own": db[0] + ":8080", "a pod's own IPv6": "[" + db[1] + "]:8080",
	} {
		if r := alice.cmd("curl", "-sS", "-g", "--max-time", "1", "http://"+at).try(t); r.code == 0 {
			t.Errorf("%s address answers: %s", what, r.stdout)
		}
	}
	for _, ip := range append(db, web) {
		if way := alice.sh("ip route get " + ip + " 2>&1; true").must(t); strings.Contains(way, "podnet") {
			t.Errorf("the way to %s: %s", ip, way)
		}
	}
	if got := alice.names(t, "till.pay.svc.cluster.local"); len(got) > 0 {
		t.Errorf("till.pay is %v", got)
	}
	if got := alice.names(t, "-x", alice.virtual(t, clusterIP(t, "pay", "till"))); len(got) > 0 {
		t.Errorf("till's virtual address has the name %v", got)
	}

	sum := alice.cmd("curl", "-sS", "http://web.shop/blob/sha256?size=100M").must(t)
	start := time.Now()
	want(t, alice.sh("curl -sS 'http://web.shop/blob?size=100M' | sha256sum").must(t), sum)
	report(t, "100 MB from a virtual address", fmt.Sprintf("%.0f MB/s", 100/time.Since(start).Seconds()))
	report(t, "1,000 connections to a virtual address", alice.role("connections", name+":5432", "1000", "16").must(t))

	// The next gateway knows it all from the Peer.
	before := alice.connection(t).Addresses
	pod := func() string {
		return kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "--ignore-not-found",
			"-o", `jsonpath={.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}`).must(t)
	}
	old := pod()
	start = time.Now()
	kubectl("delete", "pod", "-n", "podnet-system", "podnet-gateway-0", "--force", "--grace-period=0").must(t)
	eventually(t, time.Minute, "another gateway is ready", func() error {
		if now := pod(); now == old || !strings.HasSuffix(now, " True") {
			return fmt.Errorf("pod %q", now)
		}
		return nil
	})
	eventually(t, time.Minute, "web answers at its virtual address", func() error {
		if r := alice.cmd("curl", "-sS", "--max-time", "2", "http://"+alice.virtual(t, web)).try(t); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
	took := time.Since(start)
	report(t, "gateway killed to an answer by the next, at a virtual address", took.Round(100*time.Millisecond))
	eventually(t, 30*time.Second, "names resolve", func() error {
		if got := alice.names(t, "web.shop.svc.cluster.local"); len(got) != 1 {
			return fmt.Errorf("web.shop is %v", got)
		}
		return nil
	})
	use()
	if after := alice.connection(t).Addresses; fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("addresses were %v and are %v", before, after)
	}
}

// TestVirtualAddressesAsPod sends as a pod, to another at a virtual address: the agent
// in the pod knows the cluster's own.
func TestVirtualAddressesAsPod(t *testing.T) {
	teller, vault := bank(t)
	alice.connect(t, "-n", "bank", "--addresses", "virtual", "--as", "deploy/teller")
	at := alice.virtual(t, vault)
	if from, err := seenAs(t, at); err != nil || from != teller {
		t.Errorf("the vault at %s sees %s, %v; want %s", at, from, err, teller)
	}
	report(t, "500 connections as a pod, to a virtual address", alice.role("connections", at+":5432", "500", "8").must(t))
	if got := alice.sh("echo ahoy | socat -T 3 - UDP:vault.bank:5353").must(t); got != "ahoy" {
		t.Errorf("by UDP: %q", got)
	}
	want(t, alice.role("refused", at+":9").must(t), "connection refused")
}
