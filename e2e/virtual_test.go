//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/browser"
	"podnet.dev/internal/remap"
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

// guess is the same, for one who knows how podnet maps and asks nobody.
func (m machine) guess(t testing.TB, real string) string {
	t.Helper()
	var pairs []remap.Pair
	for _, v := range m.connection(t).Addresses.Map {
		p, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
	}
	all, err := remap.Parse(pairs)
	if err != nil {
		t.Fatal(err)
	}
	a, ok := all.Virtual(netip.MustParseAddr(real))
	if !ok {
		t.Fatalf("nothing stands for %s", real)
	}
	return a.String()
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
	guessed(t, web)
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

// guessed has somebody on alice's machine know the addresses of pods and of the Service
// web, and how they are mapped. None of their names was asked for so far. He gets no
// byte, at once, whatever his own name for them; and alice does once she has asked.
func guessed(t *testing.T, web string) {
	t.Helper()
	pods := strings.Fields(kubectl("get", "pod", "-n", "shop", "db-0", "-o", "jsonpath={.status.podIPs[*].ip}").must(t))
	at := map[string]string{"a Service": alice.guess(t, web) + ":80"}
	for i, pod := range pods {
		addr := alice.guess(t, pod)
		if strings.Contains(addr, ":") {
			addr = "[" + addr + "]"
		}
		at[fmt.Sprint("a pod by IPv", 4+2*i)] = addr + ":8080"
	}
	for what, addr := range at {
		host, port := addr[:strings.LastIndex(addr, ":")], addr[strings.LastIndex(addr, ":")+1:]
		start := time.Now()
		r := alice.cmd("curl", "-sS", "-g", "--max-time", "5", "--resolve", "evil.example.test:"+port+":"+host, "http://evil.example.test:"+port).try(t)
		if r.code != 7 || r.stdout != "" || time.Since(start) > 2*time.Second {
			t.Errorf("%s at a guessed address: exit %d after %v: %s%s", what, r.code, time.Since(start), r.stdout, r.stderr)
		}
		if r := alice.cmd("ping", "-c", "1", "-W", "1", strings.Trim(host, "[]")).try(t); r.code == 0 {
			t.Errorf("%s answers a ping at a guessed address", what)
		}
		if got := alice.sh("echo ahoy | socat -T 1 - UDP:" + host + ":5353 2>&1; true").must(t); strings.Contains(got, "ahoy") {
			t.Errorf("%s answers a datagram at a guessed address: %s", what, got)
		}
	}
	// A name that spells the address is one that he can make up.
	spelt := strings.ReplaceAll(pods[0], ".", "-") + ".shop.pod.cluster.local"
	want(t, alice.cmd("dig", "+short", spelt).must(t), alice.guess(t, pods[0]))
	if r := alice.cmd("curl", "-sS", "--max-time", "2", "http://"+spelt+":8080").try(t); r.code == 0 {
		t.Errorf("%s leads to the pod: %s", spelt, r.stdout)
	}
	if a := alice.connection(t).Addresses; a.Refused < uint64(len(at)) || a.LastRefused == "" {
		t.Errorf("status tells of %d refusals, the last to %q", a.Refused, a.LastRefused)
	}
	want(t, alice.podnet("status").must(t), "addresses that no name has led to")
	want(t, alice.podnet("doctor").try(t).stdout, "no name has led to")
	want(t, alice.podnet("logs").must(t), "refused an address that no name has led to")
}

// TestRebinding has a browser on alice's machine show a page of an attacker's, whose
// name has two addresses: his own, and what he knows of a pod in the cluster. When his
// server goes, the page's next request is the pod's, for all that the browser can tell.
func TestRebinding(t *testing.T) {
	const name, port = "evil.example.test", "8080"
	const forget = "grep -v " + name + " /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; rm /tmp/hosts"
	alice.connect(t, "-n", "shop", "--addresses", "virtual")
	pods := strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}").must(t))
	gateway := strings.Fields(alice.sh("ip -4 route show default").must(t))[2]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// attack returns what the page got of the second address.
	attack := func(pod string) string {
		t.Helper()
		alice.sh(fmt.Sprintf("%s; printf '%%s %s\\n' %s %s >> /etc/hosts", forget, name, gateway, pod)).must(t)
		evil := machine{name: "laptop-edge"}.start(t, "web", ":"+port, "the attacker")
		if got := strings.Fields(alice.cmd("getent", "ahosts", name).must(t)); !slices.Contains(got, gateway) || !slices.Contains(got, pod) {
			t.Fatalf("%s is at %v", name, got)
		}
		eventually(t, 5*time.Second, "the attacker's server", func() error {
			if r := alice.cmd("curl", "-sS", "--max-time", "1", "http://"+gateway+":"+port).try(t); r.code != 0 {
				return errors.New(r.stderr)
			}
			return nil
		})
		arguments := browser.Arguments(t.TempDir())
		for i, a := range arguments {
			switch {
			case strings.HasPrefix(a, "--host-resolver-rules="):
				arguments[i] = a + ", EXCLUDE " + name
			case strings.HasPrefix(a, "--disable-features="):
				arguments[i] = a + ",AsyncDns" // the C library gives both addresses
			}
		}
		chromium, err := browser.Start(alice.cmd(append([]string{"chromium"}, arguments...)...).exec(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer chromium.Close()
		page, err := chromium.Open(ctx, "http://"+name+":"+port)
		if err == nil {
			err = page.Until(ctx, `document.body.innerText.includes("the attacker")`)
		}
		if err != nil {
			t.Fatalf("the attacker's page: %v", err)
		}
		evil.stop()
		var got string
		if err := page.Eval(ctx, `(async () => {
			let got = "";
			for (let i = 0; i < 20 && got === ""; i++) {
				got = await fetch("/?" + i, {cache: "no-store"}).then(r => r.text(), () => "");
				await new Promise(again => setTimeout(again, 100));
			}
			return got;
		})()`, &got); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(got)
	}
	t.Cleanup(func() {
		alice.sh("grep -v evil /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; rm /tmp/hosts").try(t)
	})
	if got := attack(alice.guess(t, pods[0])); got != "" {
		t.Errorf("the page got %s of a pod", strconv.Quote(got))
	}
	if a := alice.connection(t).Addresses; a.Refused == 0 {
		t.Error("and nothing was refused: did it try?")
	}
	// The attack is one: what alice has asked for is open to all of her programs.
	if got := attack(alice.virtual(t, pods[1])); !strings.HasPrefix(got, "hello from web") {
		t.Errorf("at an address that was given out the page gets %s", strconv.Quote(got))
	}
}
