//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// firstWhole is the commit of the first podnet that can do all that TestUpgrade asks for.
const firstWhole = "ed34b35727ce332ba8833e9d0e9fc07c000a7e4f"

// TestUpgrade has a podnet of long ago in the cluster, and one of today on the laptop;
// brings the cluster's up to date under a session; and then has the old one on the laptop.
// PODNET_OLD names another commit.
func TestUpgrade(t *testing.T) {
	if !long {
		t.Skip("builds a podnet of long ago; PODNET_E2E_LONG=1 runs it")
	}
	calm(t)
	old := past(t, cmp.Or(os.Getenv("PODNET_OLD"), firstWhole))
	market(t, 1)
	kubectl("create", "rolebinding", "market-edit", "-n", "market", "--clusterrole=edit", "--user=alice").must(t)
	put := func(bin string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if err := installFrom(ctx, bin, usual...); err != nil {
			t.Fatal(err)
		}
	}
	now := filepath.Join(top, "bin")
	t.Cleanup(func() {
		admin.podnet("uninstall").must(t)
		put(now)
	})
	admin.podnet("uninstall").must(t)
	put(old)

	paths := []string{"apiserver", "udp"}
	for _, path := range paths {
		t.Run("new client and old gateway by "+path, func(t *testing.T) { alice.doesAll(t, "new-"+path, path) })
	}

	t.Run("gateway upgraded under a session", func(t *testing.T) {
		alice.connect(t, "-n", "market")
		alice.serveLocally(t, 3000, "laptop")
		steer := []string{"deploy/stall", "8080:3000", "--header", "x-user: alice"}
		alice.steer(t, steer...)
		url := "http://" + clusterIP(t, "market", "stall") + "/"
		customers(t, url, 100, 4, "x-user: alice", "laptop").exact(t, 100, 100)
		news := alice.start(t, "fetch", url)
		time.Sleep(2 * time.Second)
		before := alice.connection(t)

		began := time.Now()
		put(now)
		kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
		ready := time.Now()
		eventually(t, 30*time.Second, "new connections", func() error {
			if s, ok := news.last(works); !ok || s.At.Before(began) {
				return errors.New("none yet")
			}
			return nil
		})
		eventually(t, 30*time.Second, "the rule is in force", func() error {
			if got := node1.cmd("curl", "-sS", "--max-time", "2", "-H", "x-user: alice", url).try(t).stdout; got != "hello from laptop\n" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		steers := time.Since(ready)
		time.Sleep(2 * time.Second)
		news.stop()
		failed, again := gap(news, began)
		report(t, "gateway of long ago upgraded under a session: new flows failed for", fmt.Sprintf("%.2f s, and worked %.2f s after the rollout; the rule was in force after %.2f s",
			failed.Seconds(), max(0, again.Sub(ready)).Seconds(), steers.Seconds()))
		if again.Sub(ready) > 5*time.Second || failed == time.Hour {
			t.Errorf("new flows:\n%s", news.diary())
		}
		if steers > 15*time.Second {
			t.Errorf("the rule was in force only after %v", steers)
		}
		after := alice.connection(t)
		if after.Peer != before.Peer || after.Tunnel.Address != before.Tunnel.Address || after.Reenrolled != before.Reenrolled {
			t.Errorf("the session was %+v and is %+v", before, after)
		}
		customers(t, url, 100, 4, "x-user: alice", "laptop").exact(t, 100, 100)
		alice.podnet("steer", "stop", "--all").must(t)
		alice.steer(t, steer...)
		customers(t, url, 100, 4, "x-user: alice", "laptop").exact(t, 100, 100)
	})

	behind := alice
	behind.programs = old
	for _, path := range paths {
		t.Run("old client and new gateway by "+path, func(t *testing.T) { behind.doesAll(t, "old-"+path, path) })
	}
	t.Run("new program and old daemon", func(t *testing.T) {
		untouched := alice.snapshot(t)
		behind.connect(t, "-n", "market")
		behind.ownDaemon(t)
		if got := alice.connection(t); got.Phase != behind.connection(t).Phase || got.Peer == "" {
			t.Errorf("%+v", got)
		}
		want(t, alice.cmd("curl", "-sS", "--max-time", "10", "http://stall.market").must(t), "hello from stall-")
		alice.podnet("disconnect", "--all").must(t)
		eventually(t, 5*time.Second, "laptop as before", func() error { return same(untouched, alice.snapshot(t)) })
	})
}

// past builds podnet as it was at a commit, gives its images to the lab, and tells where
// its programs are.
func past(t *testing.T, commit string) (bin string) {
	t.Helper()
	if host("git", "cat-file", "-e", commit+"^{commit}").run(t.Context()) != nil {
		t.Skipf("this clone does not reach back to %s: git fetch --unshallow, or PODNET_OLD=COMMIT", commit)
	}
	dir := alice.folder(t)
	began := time.Now()
	host("sh", "-c", `git archive "$0" | tar --extract --directory="$1"`, commit, dir).must(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	build := host("make", "-C", dir, "images", "VERSION=past", "PROGRAMS=./cmd/podnet ./cmd/podnet-gateway ./cmd/podnet-agent ./deploy/image").exec(ctx)
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build podnet as it was at %s: %v\n%s", commit, err, said)
	}
	report(t, "podnet built as it was at "+commit, time.Since(began).Round(time.Second))
	bin = filepath.Join(dir, "bin")
	for _, image := range []string{"podnet-gateway.tar", "podnet-agent.tar"} {
		lab("load", filepath.Join(bin, image)).must(t)
	}
	return bin
}

// ownDaemon fails the test when the daemon is not of the machine's programs.
func (m machine) ownDaemon(t *testing.T) {
	t.Helper()
	if runs := host("readlink", "/proc/"+m.daemon(t)+"/exe").must(t); runs != m.program("podnet") {
		t.Fatalf("the daemon is %s", runs)
	}
}

// doesAll connects, and does with the market what people do, in a name's words; then
// everything is as before.
func (m machine) doesAll(t *testing.T, name, path string) {
	t.Helper()
	untouched := m.snapshot(t)
	m.connect(t, "-n", "market", "-n", "shop", "--path", path)
	m.ownDaemon(t)
	curl := func(args ...string) string {
		t.Helper()
		return m.cmd(append([]string{"curl", "-sS", "-g", "--max-time", "60"}, args...)...).must(t)
	}
	want(t, curl("http://stall.market"), "hello from stall-")
	want(t, m.cmd("getent", "ahosts", "stall.market.svc.cluster.local").must(t), clusterIP(t, "market", "stall"))
	for _, ip := range strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIPs[*].ip}").must(t)) {
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		want(t, curl("http://"+ip+":8080"), "hello from web-")
		m.cmd("ping", "-c", "2", "-W", "3", strings.Trim(ip, "[]")).must(t)
	}
	if got := m.sh(`echo ahoy | socat -T 3 - UDP:stall.market:5353`).must(t); got != "ahoy" {
		t.Errorf("the UDP echo said %q", got)
	}
	began := time.Now()
	want(t, m.sh(`curl -sS --max-time 60 'http://stall.market/blob?size=50M' | sha256sum`).must(t), curl("http://stall.market/blob/sha256?size=50M"))
	want(t, m.sh(`head -c 20000000 /dev/zero | curl -sS --max-time 60 -T - http://stall.market/sink`).must(t), "20000000 ")
	report(t, name+": 50 MB down and 20 MB up", time.Since(began).Round(10*time.Millisecond))
	if got := m.connection(t).Path.Kind; got != path {
		t.Errorf("the path is %q", got)
	}

	m.serveLocally(t, 3000, "laptop")
	m.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	customers(t, "http://"+clusterIP(t, "market", "stall"), 200, 4, "x-user: alice", "laptop").exact(t, 200, 200)
	m.podnet("steer", "stop", "--all").must(t)
	customers(t, "http://"+clusterIP(t, "market", "stall"), 50, 4, "", "laptop").exact(t, 0, 50)

	m.podnet("expose", "3000", "--as", name, "-n", "market", "--detach").must(t)
	ns := netns(t, stalls(t)[0])
	eventually(t, 15*time.Second, "a pod reaches the laptop", func() error {
		got, err := callService(t, ns, name, 80)
		if err == nil && got != "hello from laptop" {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
	m.podnet("expose", "stop", name).must(t)

	m.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(untouched, m.snapshot(t)) })
	eventually(t, 30*time.Second, "nothing is left in the cluster", func() error {
		if left := kubectl("get", "peers,accesses,steeringrules,exposures", "-A", "-o", "name").must(t); left != "" {
			return errors.New(left)
		}
		return nil
	})
}
