//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// gatewayDies has alice with an open connection and making new ones while a
// gateway pod goes, and tells how long new ones failed, and how long the open
// one hung before it ended.
func gatewayDies(t *testing.T, kill func(pod string)) (began time.Time, news *watcher, hung time.Duration) {
	t.Helper()
	alice.connect(t, "-n", "shop")
	db := podAddress(t, "app=db")
	web := clusterIP(t, "shop", "web")
	paths := alice.start(t, "watch")
	session := alice.start(t, "echo", db+":5432")
	news = alice.start(t, "fetch", "http://"+web+"/")
	time.Sleep(2 * time.Second)
	before := alice.connection(t)

	began = time.Now()
	kill(before.Gateway.Pod)
	eventually(t, 30*time.Second, "the open connection ended", func() error {
		if _, ok := session.last(broken); !ok {
			return errors.New("it is open")
		}
		return nil
	})
	end, _ := session.last(broken)
	eventually(t, 40*time.Second, "new connections", func() error {
		if s, ok := news.last(works); !ok || s.At.Before(began) {
			if _, failed := news.since(began, fails); failed || time.Since(began) < 5*time.Second {
				return errors.New("none yet")
			}
		}
		return nil
	})
	alice.cmd("curl", "-sS", "--max-time", "5", "http://web.shop").must(t) // by name as well
	time.Sleep(time.Second)
	after := alice.connection(t)
	if after.Tunnel.Address != before.Tunnel.Address || after.Tunnel.Address6 != before.Tunnel.Address6 {
		t.Errorf("the addresses were %s and %s and are %s and %s", before.Tunnel.Address, before.Tunnel.Address6, after.Tunnel.Address, after.Tunnel.Address6)
	}
	paths.stop()
	news.stop()
	t.Logf("new connections:\n%s", news.diary())
	return began, news, end.At.Sub(began)
}

// gap is how long new connections failed from an instant on, and when they
// worked again: zero when they always did.
func gap(news *watcher, from time.Time) (failed time.Duration, again time.Time) {
	for at := from; ; {
		bad, ok := news.since(at, fails)
		if !ok {
			return failed, again
		}
		good, ok := news.since(bad.At, works)
		if !ok {
			return time.Hour, again
		}
		failed, again = max(failed, good.At.Sub(bad.At)), good.At
		at = good.At
	}
}

func TestSingleGatewayIsKilled(t *testing.T) {
	calm(t)
	const pod = "podnet-gateway-0"
	var ready time.Time
	began, news, hung := gatewayDies(t, func(string) {
		uid := func() string {
			return kubectl("get", "pod", "-n", "podnet-system", pod, "--ignore-not-found",
				"-o", `jsonpath={.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}`).must(t)
		}
		old := uid()
		kubectl("delete", "pod", "-n", "podnet-system", pod, "--force", "--grace-period=0").must(t)
		eventually(t, time.Minute, "new pod", func() error {
			if now := uid(); now == old || len(now) < 5 || now[len(now)-4:] != "True" {
				return fmt.Errorf("%q", now)
			}
			return nil
		})
		ready = time.Now()
	})
	failed, again := gap(news, began)
	late := max(0, again.Sub(ready))
	report(t, "[33] single gateway killed", fmt.Sprintf("the new pod ready %.2f s after it; new flows failed for %.2f s", ready.Sub(began).Seconds(), failed.Seconds()))
	measure.AtMost(t, "[33] single gateway killed: the new pod ready to new flows", late, 10*time.Second)
	measure.AtMost(t, "[33] single gateway killed: the open flow's end", hung, 15*time.Second)
	if late > 5*time.Second || failed == time.Hour { // it may be that none failed
		t.Errorf("new flows %v after the new pod was ready", late)
	}
}

func TestOneOfTwoGatewaysGoes(t *testing.T) {
	calm(t)
	installed(t, append([]string{"--replicas", "2"}, usual...)...)
	kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)

	t.Run("killed", func(t *testing.T) {
		began, news, hung := gatewayDies(t, func(pod string) {
			kubectl("delete", "pod", "-n", "podnet-system", pod, "--force", "--grace-period=0").must(t)
		})
		failed, _ := gap(news, began)
		judgeGone(t, "killed", failed, hung)
		if !within(failed, 10*time.Second) {
			t.Errorf("new flows failed for %v", failed)
		}
	})
	kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
	t.Run("frozen", func(t *testing.T) {
		// Nobody says goodbye, and nothing refuses: only silence tells.
		var frozen string
		node := machine{name: "node1"}
		t.Cleanup(func() { node.sh("kill -KILL " + frozen).try(t) })
		began, news, hung := gatewayDies(t, func(pod string) {
			ip := kubectl("get", "pod", "-n", "podnet-system", pod, "-o", "jsonpath={.status.podIP}").must(t)
			frozen = node.sh("for p in $(ip netns pids " + netns(t, ip) + "); do grep -q gateway /proc/$p/comm && echo $p; done").must(t)
			node.sh("kill -STOP " + frozen).must(t)
		})
		failed, _ := gap(news, began)
		judgeGone(t, "frozen", failed, hung)
		if !within(failed, 10*time.Second) {
			t.Errorf("new flows failed for %v", failed)
		}
	})
	kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
	t.Run("drained", func(t *testing.T) {
		began, news, hung := gatewayDies(t, func(pod string) {
			kubectl("delete", "pod", "-n", "podnet-system", pod, "--wait=false").must(t)
		})
		failed, _ := gap(news, began)
		report(t, "one of two gateways drained: new flows failed for (3 s)", fmt.Sprintf("%.2f s; the open flow ended after %.2f s", failed.Seconds(), hung.Seconds()))
		if !within(failed, 3*time.Second) {
			t.Errorf("new flows failed for %v", failed)
		}
	})
	kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
	t.Run("upgraded", func(t *testing.T) {
		// Another podnet install replaces both pods, one after the other, under a
		// session that is not told.
		var before string
		began, news, _ := gatewayDies(t, func(string) {
			before = alice.connection(t).Peer
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			if err := install(ctx, append([]string{"--replicas", "2", "--log-level", "debug"}, usual...)...); err != nil {
				t.Fatal(err)
			}
		})
		kubectl("rollout", "status", "-n", "podnet-system", "statefulset/podnet-gateway", "--timeout=60s").must(t)
		failed, _ := gap(news, began)
		report(t, "both gateways upgraded under a session: new flows failed for (3 s)", fmt.Sprintf("%.2f s", failed.Seconds()))
		if !within(failed, 3*time.Second) {
			t.Errorf("new flows failed for %v", failed)
		}
		if after := alice.connection(t).Peer; after != before || before == "" {
			t.Errorf("the session's Peer was %q and is %q", before, after)
		}
	})
}

// judgeGone prints what it cost that one of two gateways was there no more.
func judgeGone(t *testing.T, how string, failed, hung time.Duration) {
	t.Helper()
	measure.AtMost(t, "[33] one of two gateways "+how+": new flows failed for", failed, 10*time.Second)
	measure.AtMost(t, "[33] one of two gateways "+how+": the open flow's end", hung, 15*time.Second)
}

// TestSleepingLaptop freezes the daemon for longer than its lease. A freeze is
// how a sleep looks from inside, the clock's jump included.
func TestSleepingLaptop(t *testing.T) {
	bob.parallel(t)
	sleep := lasting(70*time.Second, 10*time.Minute)
	bob.connect(t, "-n", "shop", "--lease", "60s")
	before := bob.connection(t)
	session := bob.start(t, "echo", podAddress(t, "app=db")+":5432")
	eventually(t, 10*time.Second, "a connection is open", func() error {
		if _, ok := session.last(works); !ok {
			return errors.New("it is not")
		}
		return nil
	})
	pid := bob.daemon(t)
	bob.cmd("kill", "-STOP", pid).must(t)
	t.Cleanup(func() { bob.sh("kill -CONT " + pid).try(t) })
	time.Sleep(sleep)

	woken := time.Now()
	bob.cmd("kill", "-CONT", pid).must(t)
	took := eventually(t, 30*time.Second, "usable", func() error {
		if r := bob.cmd("curl", "-sS", "--max-time", "1", "http://web.shop").try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	after := bob.connection(t)
	measure.AtMost(t, fmt.Sprintf("[30] daemon with a lease of 60 s frozen for %v: to the first answer", sleep), took, 10*time.Second)
	if !within(took, 10*time.Second) {
		t.Errorf("usable only after %v", took)
	}
	eventually(t, 20*time.Second, "the open connection goes on or ends", func() error {
		if _, ok := session.last(broken); ok {
			return nil
		}
		if s, ok := session.last(silence); ok && s.At.Add(s.For).After(woken) {
			return nil
		}
		return errors.New("it hangs")
	})
	report(t, "and the session", fmt.Sprintf("enrolled again %d times, address %s then %s", after.Reenrolled, before.Tunnel.Address, after.Tunnel.Address))
}
