//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// developer is somebody who holds the built-in role edit in one namespace, and nothing
// else in the cluster: a ServiceAccount with its token in a kubeconfig.
type developer struct {
	machine
	namespace, kubeconfig string
}

func newDeveloper(t *testing.T, namespace, name string) developer {
	t.Helper()
	kubectl("create", "serviceaccount", "-n", namespace, name).must(t)
	kubectl("create", "rolebinding", "-n", namespace, name+"-edit", "--clusterrole=edit", "--serviceaccount="+namespace+":"+name).must(t)
	t.Cleanup(func() {
		kubectl("delete", "rolebinding,serviceaccount", "-n", namespace, name+"-edit", name, "--ignore-not-found").try(t)
	})
	d := developer{admin, namespace, filepath.Join(t.TempDir(), "config")}
	admin.sh(fmt.Sprintf("kubectl config view --minify --flatten --raw > %[1]s && token=$(kubectl create token -n %[2]s %[3]s) && "+
		"kubectl --kubeconfig %[1]s config set-credentials %[3]s --token=$token && kubectl --kubeconfig %[1]s config set-context --current --user=%[3]s --namespace=%[2]s",
		d.kubeconfig, namespace, name)).must(t)
	return d
}

func (d developer) run(program string, args ...string) command {
	return d.cmd(append([]string{"env", "KUBECONFIG=" + d.kubeconfig, program}, args...)...)
}

func (d developer) podnet(args ...string) command {
	return d.run(filepath.Join(top, "bin/podnet"), args...)
}

func (d developer) may(t *testing.T, what string) bool {
	t.Helper()
	return d.run("kubectl", append([]string{"auth", "can-i", "-n", d.namespace}, strings.Fields(what)...)...).try(t).code == 0
}

// installs puts the gateway of one namespace there.
func (d developer) installs(t *testing.T, flags ...string) {
	t.Helper()
	image, err := os.ReadFile(filepath.Join(top, "bin/podnet-gateway.image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.podnet("uninstall", "--namespace", d.namespace).try(t) })
	d.podnet(append([]string{"install", "--namespace", d.namespace, "--image-pull-policy", "Never", "--image", strings.TrimSpace(string(image))}, flags...)...).must(t)
}

// TestNamespaceMode is a developer's day who may edit the namespace shop and do
// nothing else in the cluster.
func TestNamespaceMode(t *testing.T) {
	d := newDeveloper(t, "shop", "dev")
	t.Cleanup(func() { d.podnet("disconnect", "--all").try(t) })
	before := admin.snapshot(t)
	// This is why there is such a mode: the role allows no roles, and no kinds.
	for what, want := range map[string]bool{"create statefulsets": true, "create pods/portforward": true, "create services": true, "create roles": false, "create rolebindings": false, "create clusterroles": false, "create customresourcedefinitions": false, "list nodes": false} {
		if got := d.may(t, what); got != want {
			t.Errorf("the role edit allows to %s: %v", what, got)
		}
	}
	explained(t, d.podnet("install").mustFail(t), "may not")

	began := time.Now()
	d.installs(t, "--node-port", "31899")
	report(t, "podnet install --namespace by a holder of edit, until ready", time.Since(began).Round(100*time.Millisecond))
	if mounted := kubectl("get", "pod", "-n", "shop", "podnet-gateway-0", "-o", "jsonpath={.spec.volumes}").must(t); mounted != "" {
		t.Errorf("the gateway of one namespace has volumes, and so perhaps credentials: %s", mounted)
	}
	explained(t, d.podnet("install", "--namespace", "podnet-system").mustFail(t), "may not")
	explained(t, admin.podnet("install", "--namespace", "podnet-system").mustFail(t), "the whole cluster's")

	explained(t, d.podnet("connect", "-n", "pay", "--gateway-namespace", "shop").mustFail(t), "does not open namespace pay")

	web, till := clusterIP(t, "shop", "web"), clusterIP(t, "pay", "till")
	pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t)
	shopReached := func() error {
		if r := d.cmd("curl", "-sS", "--max-time", "5", "http://web.shop").try(t); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	}
	for _, path := range []string{"apiserver", "auto"} {
		began := time.Now()
		d.podnet("connect", "--wait", "--path", path, "--lease", "60s").must(t)
		report(t, "podnet connect in namespace mode, --path "+path, time.Since(began).Round(10*time.Millisecond))
		status := d.podnet("status").must(t)
		want(t, status, "shop/podnet-gateway-0, namespace mode (shop)", map[string]string{"apiserver": "apiserver", "auto": "udp "}[path])
		for _, url := range []string{"http://web.shop", "http://web", "http://web.shop.svc.cluster.local", "http://" + web, "http://" + pod + ":8080"} {
			d.cmd("curl", "-sS", "--max-time", "10", url).must(t)
		}
		if path == "apiserver" {
			d.podnet("disconnect").must(t)
		}
	}

	for _, name := range []string{"db-0.db.shop.svc.cluster.local", "web-dual.shop.svc.cluster.local"} {
		if got := d.cmd("dig", "+short", name).must(t); got == "" {
			t.Errorf("%s does not resolve", name)
		}
	}
	want(t, d.cmd("dig", "+short", "SRV", "_http._tcp.web.shop.svc.cluster.local").must(t), "web.shop.svc.cluster.local.")
	want(t, d.cmd("dig", "+short", "-x", web).must(t), "web.shop.svc.cluster.local.")
	d.role("connections", clusterIP(t, "shop", "web-dual")+":5432", "200", "8").must(t)
	if got := d.sh("echo ahoy | socat -T 3 - UDP:web.shop:5353").must(t); got != "ahoy" {
		t.Errorf("UDP echo said %q", got)
	}

	// Nothing beyond the namespace, by name or by address.
	for _, name := range []string{"till.pay.svc.cluster.local", "kubernetes.default.svc.cluster.local"} {
		if got := d.cmd("dig", "+short", name).must(t); got != "" {
			t.Errorf("%s resolves to %s", name, got)
		}
	}
	node := kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}").must(t)
	gateway := kubectl("get", "pod", "-n", "shop", "podnet-gateway-0", "-o", "jsonpath={.status.podIP}").must(t)
	for what, addr := range map[string]string{
		"another namespace": till + ":80", "API server's Service": clusterIP(t, "default", "kubernetes") + ":443", "gateway's probes": gateway + ":8081", "desk": gateway + ":51822",
	} {
		if r := d.cmd("curl", "-skS", "--max-time", "3", "-o", "/dev/null", "https://"+addr).try(t); r.code != 7 && r.code != 28 {
			t.Errorf("the %s at %s can be reached (curl exit %d)", what, addr, r.code)
		}
	}
	if route := d.cmd("ip", "route", "get", strings.Fields(node)[0]).must(t); strings.Contains(route, "podnet") {
		t.Errorf("the node's address goes into the tunnel: %s", route)
	}
	explained(t, d.podnet("steer", "deploy/web", "8080:3000").mustFail(t), "cannot steer")
	explained(t, d.podnet("expose", "3000", "--as", "my-api").mustFail(t), "cannot expose anything")
	for cannot, args := range map[string][]string{"let in a device without podnet": {"export"}, "say who is connected": {"admin", "top"}, "end somebody's sessions": {"admin", "revoke", "alice"}} {
		explained(t, d.podnet(args...).mustFail(t), "may not", "namespace podnet-system", "ask an administrator for") // the whole cluster's is there
		explained(t, d.podnet(append(args, "--gateway-namespace", "shop")...).mustFail(t), "the gateway of namespace shop cannot "+cannot)
	}
	findings, _ := examined(t, d.podnet("doctor", "-o", "json"))
	finds(t, findings, "podnet/installed", localapi.ResultOK, "namespace mode (shop)")

	// Its pod is replaced: the session tells the new one of its peer by itself.
	began = time.Now()
	kubectl("delete", "pod", "-n", "shop", "podnet-gateway-0").must(t) // returns when it is gone
	eventually(t, 60*time.Second, "reached again", shopReached)
	report(t, "gateway of a namespace deleted to its Services reached again", time.Since(began).Round(100*time.Millisecond))

	if long {
		kubectl("delete", "rolebinding", "-n", "shop", "dev-edit").must(t)
		took := eventually(t, 90*time.Second, "access ended with the permission", func() error {
			if shopReached() == nil {
				return errors.New("web.shop still answers")
			}
			return nil
		})
		report(t, "role edit taken to traffic stopped in namespace mode (lease 60 s)", took.Round(time.Second))
		kubectl("create", "rolebinding", "-n", "shop", "dev-edit", "--clusterrole=edit", "--serviceaccount=shop:dev").must(t)
	}
	d.podnet("disconnect", "--all").must(t)
	d.podnet("uninstall", "--namespace", "shop").must(t)
	if left := kubectl("get", "all,poddisruptionbudgets,endpointslices,serviceaccounts,roles,rolebindings,configmaps,secrets", "-n", "shop", "-l", "app.kubernetes.io/part-of=podnet", "-o", "name").must(t); left != "" {
		t.Errorf("left behind: %s", left)
	}
	kubectl("get", "statefulset", "-n", "podnet-system", "podnet-gateway").must(t) // the whole cluster's stays
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, admin.snapshot(t)) })
}
