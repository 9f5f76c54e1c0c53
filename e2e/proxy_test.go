//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProxyWithoutPrivilege reaches the cluster as somebody who may do nothing on the
// laptop, while the laptop itself stays as it is.
func TestProxyWithoutPrivilege(t *testing.T) {
	before := alice.snapshot(t)
	kubeconfig := filepath.Join(os.TempDir(), "podnet-nobody.kubeconfig") // t.TempDir is for us alone
	if err := os.WriteFile(kubeconfig, []byte(alice.sh(`cat "${KUBECONFIG:-$HOME/.kube/config}"`).must(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(kubeconfig) })
	nobody := func(flags []string, script string) command {
		args := append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
			"env", "KUBECONFIG=" + kubeconfig, "HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent", filepath.Join(top, "bin/podnet"), "proxy", "-n", "shop"}, flags...)
		return alice.cmd(append(args, "--", "sh", "-c", script)...)
	}
	curl := "curl -sS --max-time 10 "

	for _, path := range []string{"udp", "apiserver"} {
		r := nobody([]string{"--path", path, "--listen", "127.0.0.1:0"}, curl+"http://web.shop; id -u; grep CapEff /proc/self/status").try(t)
		if r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", path, r.code, r.stdout, r.stderr)
		}
		want(t, r.stdout, "hello from web-", "65534", "0000000000000000")
		report(t, "proxy as uid 65534 without capabilities, "+path+": start to end of the first request (under 3 s)", r.took.Round(time.Millisecond))
	}

	host := strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t))[0]
	for what, script := range map[string]string{
		"a short name by SOCKS":        "env -u http_proxy " + curl + "http://web",
		"a name by HTTP CONNECT":       "env -u http_proxy -u all_proxy -u ALL_PROXY " + curl + "-p -x $HTTP_PROXY http://web.shop.svc.cluster.local",
		"a pod's address":              curl + "http://" + host + ":8080",
		"a TCP port":                   "echo ahoy | socat -T 3 - TCP:127.0.0.1:15432",
		"a UDP port":                   "echo ahoy | socat -T 3 - UDP:127.0.0.1:15353",
		"a closed port, which is told": curl + "-f -o /dev/null http://web.shop:9 || echo code $?",
	} {
		r := nobody([]string{"--listen", "127.0.0.1:0", "--forward", "15432=db-0.db.shop:5432", "--forward", "15353=web.shop:5353/udp"}, script).try(t)
		says := "hello from web-"
		switch {
		case strings.Contains(script, "ahoy"):
			says = "ahoy"
		case strings.Contains(script, "code"):
			says = "code 22"
		}
		if !strings.Contains(r.stdout, says) {
			t.Errorf("%s: exit %d\n%s%s", what, r.code, r.stdout, r.stderr)
		}
	}
	want(t, nobody([]string{"--listen", "127.0.0.1:0"}, curl+"-o /dev/null -w '%{http_code}' http://www.example.test").must(t), "200")
	if r := nobody([]string{"--listen", "127.0.0.1:0"}, "exit 7").try(t); r.code != 7 {
		t.Errorf("exit status %d", r.code)
	}
	if after := alice.snapshot(t); after != before {
		t.Errorf("the laptop has changed:\n%s\nwas:\n%s", after, before)
	}
	if left := kubectl("get", "peers", "-n", "podnet-system", "-o", "name").must(t); left != "" {
		t.Errorf("left behind: %s", left)
	}
}
