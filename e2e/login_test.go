//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// TestDaemonThatStartsWithTheLogin is a laptop whose daemon connects by a profile,
// tells a menu what there is to choose from, comes back when an administrator ends
// the session, and leaves the machine as it was.
func TestDaemonThatStartsWithTheLogin(t *testing.T) {
	before := alice.snapshot(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "d.sock")
	podnet := func(args ...string) command {
		return alice.cmd(append([]string{"env", "XDG_CONFIG_HOME=" + dir, "XDG_STATE_HOME=" + dir, "PODNET_SOCKET=" + socket, filepath.Join(top, "bin/podnet")}, args...)...)
	}
	status := func() (s localapi.Status, err error) {
		return s, json.Unmarshal([]byte(podnet("status", "-o", "json").try(t).stdout), &s)
	}
	connected := func() error {
		s, err := status()
		if err == nil && (s.State != localapi.Connected || s.Connections[0].Name != "work") {
			err = fmt.Errorf("%s: %+v", s.State, s.LastError)
		}
		return err
	}

	podnet("config", "set", "defaults.lease", "5m").must(t)
	podnet("profile", "save", "work", "-n", "shop", "--lease", "1m", "--auto-connect").must(t)
	ctx, stop := context.WithCancel(context.Background())
	daemon := podnet("daemon").exec(ctx)
	began := time.Now()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		alice.podnet("--socket", socket, "disconnect", "--all").try(t)
		stop()
		_ = daemon.Wait()
	})
	eventually(t, 30*time.Second, "connected by the profile", connected)
	report(t, "podnet daemon to connected by a profile", time.Since(began).Round(10*time.Millisecond))

	// What a menu offers, as a menu asks for it; and one click opens it.
	call := func(path string, to any) {
		t.Helper()
		text := alice.cmd("curl", "-sS", "--max-time", "10", "--unix-socket", socket, "http://"+localapi.Host+path).must(t)
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatalf("%s: %v in %s", path, err, text)
		}
	}
	var namespaces localapi.NamespaceList
	call("/v1/namespaces", &namespaces)
	want(t, strings.Join(namespaces.Namespaces, " "), "shop")
	var services localapi.ServiceList
	call("/v1/services?namespace=shop", &services)
	url := ""
	for _, s := range services.Services {
		if s.Name == "web" && len(s.Ports) > 0 {
			url = s.Ports[0].URL
		}
	}
	if url != "http://web.shop" {
		t.Fatalf("web is offered as %q: %+v", url, services)
	}
	alice.cmd("curl", "-sS", "--max-time", "10", url).must(t)
	if r := alice.cmd("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Origin: http://evil.example",
		"--unix-socket", socket, "http://"+localapi.Host+"/v1/status").must(t); r != "403" {
		t.Errorf("a web page is answered with %s", r)
	}

	// The session ends by itself, and comes back.
	s, err := status()
	if err != nil {
		t.Fatal(err)
	}
	kubectl("delete", "peer", "-n", "podnet-system", s.Connections[0].Peer, "--wait=false").must(t)
	began = time.Now()
	ended := eventually(t, 60*time.Second, "the session ended", func() error {
		s, err := status()
		if err == nil && len(s.Connections) > 0 {
			err = fmt.Errorf("still there: %s", s.State)
		}
		return err
	})
	report(t, "Peer deleted to the session ended, with a lease of 60 s", ended.Round(100*time.Millisecond))
	eventually(t, 30*time.Second, "connected again", connected)
	report(t, "and to connected again", time.Since(began).Round(100*time.Millisecond))
	alice.cmd("curl", "-sS", "--max-time", "10", url).must(t)
	want(t, podnet("logs", "--since", "5m").must(t), `msg="profile wanted" profile=work`, `msg="session ended"`, `msg="session ready"`)

	// What somebody disconnects stays so, and the daemon stays, too.
	podnet("disconnect").must(t)
	if s, err := status(); err != nil || s.State != localapi.Disconnected || len(s.Warnings) > 0 {
		t.Errorf("after disconnect: %+v, %v", s, err)
	}
	alice.cmd("kill", "-TERM", alice.daemon(t)).must(t)
	eventually(t, 10*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
}
