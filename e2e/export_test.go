//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// TestExportedDevice gives bob's laptop, which is to be a device without podnet, a
// configuration that alice has exported: upstream's wg-quick brings it up, with
// cluster names by its line DNS. It lives while alice's daemon renews it, is found
// again by the next daemon, and is shut out by alice's word.
func TestExportedDevice(t *testing.T) {
	alice.parallel(t)
	owners[bob.name].Lock()
	t.Cleanup(owners[bob.name].Unlock)
	dir := t.TempDir()
	const config, resolv = "export0.conf", "resolv.conf"
	t.Cleanup(func() { alice.podnet("export", "revoke", "--all").try(t); alice.podnet("disconnect").try(t) })
	alice.podnet("export", "-n", "shop", "--name", "phone", "--lease", "60s", "--dns", "198.51.100.53", "-o", filepath.Join(dir, config)).must(t)
	want(t, alice.podnet("export", "-n", "pay").mustFail(t).stderr, "pods/portforward", "pay", "hint:")
	exports := func() []localapi.Export {
		t.Helper()
		var list localapi.ExportList
		if err := json.Unmarshal([]byte(alice.podnet("export", "list", "-o", "json").must(t)), &list); err != nil {
			t.Fatal(err)
		}
		return list.Exports
	}
	if all := exports(); len(all) != 1 || !all[0].Renewed || all[0].Text != "" {
		t.Fatalf("exported: %+v", all)
	}
	peer := exports()[0].Name

	// A stand-in for resolvconf(8), which the lab lacks: as much of it as wg-quick
	// asks for.
	write(t, filepath.Join(dir, "resolvconf"), fmt.Sprintf("#!/bin/sh\ncase $1 in\n-a) cp /etc/resolv.conf %[1]s; cat > /etc/resolv.conf ;;\n-d) cat %[1]s > /etc/resolv.conf ;;\nesac\n", filepath.Join(dir, resolv)))
	if err := os.Chmod(filepath.Join(dir, "resolvconf"), 0o755); err != nil {
		t.Fatal(err)
	}
	quick := wgQuick(t, laptop2, dir, filepath.Join(dir, config))
	before := laptop2.sh("cat /etc/resolv.conf; ip route; ip -6 route").must(t)
	down := func() {
		quick("down").must(t)
		if err := same(before, laptop2.sh("cat /etc/resolv.conf; ip route; ip -6 route").must(t)); err != nil {
			t.Errorf("the device: %v", err)
		}
	}
	start := time.Now()
	quick("up").must(t)
	t.Cleanup(func() { down() })

	get := func(url string) error {
		if r := laptop2.cmd("curl", "-sS", "--max-time", "3", url).try(t); r.code != 0 {
			return fmt.Errorf("%s: %s", url, r.stderr)
		}
		return nil
	}
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		eventually(t, 10*time.Second, name+" answers", func() error { return get("http://" + name) })
	}
	report(t, "wg-quick up to four cluster names answered", time.Since(start).Round(time.Millisecond))
	want(t, laptop2.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.") // by the second resolver
	pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t)
	laptop2.cmd("ping", "-c", "1", "-W", "3", pod).must(t)
	if err := get("http://" + clusterIP(t, "pay", "till")); err == nil {
		t.Error("the device reaches namespace pay")
	}
	if got := laptop2.cmd("dig", "+short", "till.pay.svc.cluster.local").must(t); got != "" {
		t.Errorf("the device resolves till.pay: %s", got)
	}

	renewals := func() int {
		n, err := strconv.Atoi(kubectl("get", "peer", "-n", "podnet-system", peer, "-o", "jsonpath={.spec.renew}").must(t))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	renewed := func(within time.Duration) time.Duration {
		was := renewals()
		return eventually(t, within, "the daemon renews", func() error {
			if renewals() == was {
				return errors.New("it has not")
			}
			return nil
		})
	}
	renewed(40 * time.Second)
	alice.cmd("kill", "-9", alice.daemon(t)).must(t)
	if all := exports(); len(all) != 1 || all[0].Name != peer || !all[0].Renewed {
		t.Errorf("the next daemon knows: %+v", all)
	}
	report(t, "a new daemon renews what the killed one had exported", renewed(40*time.Second).Round(time.Second))
	if err := get("http://web.shop"); err != nil {
		t.Error(err)
	}

	secret := host("sh", "-c", "sed -n 's/^PrivateKey = //p' "+filepath.Join(dir, config)).must(t)
	if r := alice.sh("grep -rlF '" + secret + "' $HOME $XDG_RUNTIME_DIR").try(t); r.stdout != "" || secret == "" {
		t.Errorf("the private key %q is kept in %s", secret[:min(4, len(secret))], r.stdout)
	}

	start = time.Now()
	want(t, alice.podnet("export", "revoke", "phone").must(t)+peer, peer)
	eventually(t, 5*time.Second, "the device is shut out", func() error {
		if laptop2.cmd("curl", "-sS", "--max-time", "1", "http://"+clusterIP(t, "shop", "web")).try(t).code == 0 {
			return errors.New("it still reaches web")
		}
		return nil
	})
	report(t, "export revoke to nothing reached (the promise: 2 s and the command)", time.Since(start).Round(time.Millisecond))
	if all := exports(); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
	if !strings.Contains(alice.podnet("export", "list").must(t), "nothing is exported") {
		t.Error("and it lists them")
	}
}
