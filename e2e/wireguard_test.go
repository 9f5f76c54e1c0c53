//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wgQuick is upstream's wg-quick on a machine, with programs in dir before others.
// The kernel here may lack WireGuard, so it brings upstream's wireguard-go.
func wgQuick(t *testing.T, m machine, dir, config string) func(verb string) command {
	wireguardGo := filepath.Join(dir, "wireguard-go")
	host("go", "build", "-o", wireguardGo, "golang.zx2c4.com/wireguard").must(t)
	return func(verb string) command {
		return m.sh(fmt.Sprintf("PATH=%s:$PATH WG_QUICK_USERSPACE_IMPLEMENTATION=%s wg-quick %s %s", dir, wireguardGo, verb, config))
	}
}

// TestPlainWireGuardClient has an unmodified wg-quick use a gateway that runs
// from a WireGuard file, without Kubernetes and without privilege, on a node.
func TestPlainWireGuardClient(t *testing.T) {
	node := machine{name: "node1"}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the gateway is nobody, and looks in here
		t.Fatal(err)
	}
	keys := map[string]string{}
	for _, who := range []string{"gateway", "client"} {
		keys[who] = host("wg", "genkey").must(t)
		keys[who+".pub"] = host("sh", "-c", "echo "+keys[who]+" | wg pubkey").must(t)
	}
	nodeIP := kubectl("get", "node", "node1", "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`).must(t)
	write(t, filepath.Join(dir, "gateway.conf"), fmt.Sprintf(`[Interface]
PrivateKey = %s
ListenPort = 51999
Address = 10.9.0.1/24, fd00:9::1/64

[Peer]
PublicKey = %s
AllowedIPs = 10.9.0.2/32, fd00:9::2/128
`, keys["gateway"], keys["client.pub"]))
	write(t, filepath.Join(dir, "wgtest0.conf"), fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = 10.9.0.2/32, fd00:9::2/128

[Peer]
PublicKey = %s
Endpoint = %s:51999
AllowedIPs = 10.9.0.1/32, 10.244.0.0/16, fd00:10:244::/48
PersistentKeepalive = 25
`, keys["client"], keys["gateway.pub"], strings.Fields(nodeIP)[0]))

	// The checkout may be where only root can look.
	host("cp", filepath.Join(top, "bin/podnet-gateway"), dir).must(t)
	ctx, stop := context.WithCancel(t.Context())
	gateway := node.cmd("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
		filepath.Join(dir, "podnet-gateway"), "--wireguard-config", filepath.Join(dir, "gateway.conf")).exec(ctx)
	var log bytes.Buffer
	gateway.Stderr = &log
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = gateway.Wait()
		if t.Failed() {
			t.Logf("the gateway said:\n%s", log.String())
		}
	})

	quick := wgQuick(t, laptop1, dir, filepath.Join(dir, "wgtest0.conf"))
	t.Cleanup(func() { quick("down").must(t) })
	quick("up").must(t)

	pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}").must(t)
	eventually(t, 10*time.Second, "a pod answers", func() error {
		if r := laptop1.cmd("curl", "-sS", "--max-time", "3", "http://"+pod+":8080").try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	laptop1.cmd("ping", "-c", "1", "-W", "3", pod).must(t)
	want(t, laptop1.role("refused", pod+":9").must(t), "connection refused")
	want(t, laptop1.cmd("wg", "show", "wgtest0").must(t), "latest handshake")
}
