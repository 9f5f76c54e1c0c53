//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// TestAPIServerAway stops the API server under alice, who is on udp, and under
// bob, whose office drops UDP.
func TestAPIServerAway(t *testing.T) {
	calm(t)
	away := lasting(60*time.Second, 5*time.Minute)
	t.Cleanup(func() { lab("start", "apiserver").must(t) })
	lab("drop-udp", "laptop2").must(t)
	db, web := podAddress(t, "app=db")+":5432", "http://"+clusterIP(t, "shop", "web")+"/"
	alice.connect(t, "-n", "shop")
	bob.connect(t, "-n", "shop")
	alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
	type user struct{ paths, session, news *watcher }
	users := map[string]user{}
	for _, m := range []machine{alice, bob} {
		users[m.user] = user{m.start(t, "watch"), m.start(t, "echo", db), m.start(t, "fetch", web)}
	}
	time.Sleep(2 * time.Second)

	began := time.Now()
	lab("stop", "--kill", "apiserver").must(t)
	var text string
	said := eventually(t, 15*time.Second, "bob is told", func() error {
		s := bob.status(t)
		text = string(s.State)
		for _, w := range s.Warnings {
			text += "; " + w.Text
		}
		if s.State != localapi.Degraded || s.Connections[0].Path.Kind != "" || !strings.Contains(text, "cannot reach the API server") {
			return errors.New(text)
		}
		return nil
	})
	report(t, "API server away: on apiserver the session says so", fmt.Sprintf("after %.1f s: %s", said.Seconds(), text))
	time.Sleep(time.Until(began.Add(away)))
	if c := alice.connection(t); c.Path.Kind != "udp" {
		t.Errorf("alice is on %q", c.Path.Kind)
	}
	lab("start", "apiserver").must(t) // waits until it answers
	back := time.Now()
	onPath := users["bob"].paths.waitPath(t, "apiserver", back, 30*time.Second)
	eventually(t, 20*time.Second, "bob's new connections", func() error {
		if s, ok := users["bob"].news.last(works); !ok || s.At.Before(began) {
			return fmt.Errorf("fail")
		}
		return nil
	})
	good, _ := users["bob"].news.last(works)
	report(t, fmt.Sprintf("API server away for %v: on apiserver back after its return (8 s)", away),
		fmt.Sprintf("path %.2f s, new flows %.2f s", onPath.Seconds(), max(0, good.At.Sub(back)).Seconds()))
	if late := good.At.Sub(back); !within(late, 8*time.Second) {
		t.Errorf("bob's flows work only %v after the server's return", late)
	}

	time.Sleep(3 * time.Second)
	echoed := users["alice"].session.stop()
	users["alice"].session.unbroken(t)
	users["alice"].news.stop()
	failed, _ := gap(users["alice"].news, began)
	still := longest(echoed, began, time.Now())
	report(t, fmt.Sprintf("[34] API server away for %v: on udp no flow lost", away), fmt.Sprintf("longest silence %.2f s, new flows failed for %.2f s", still.Seconds(), failed.Seconds()))
	if !within(still, 3*time.Second) || failed > 0 {
		t.Errorf("on udp: silent for %v, new flows failed for %v", still, failed)
	}
	// An unplugged laptop's flows are the gateway's for two minutes.
	end, ok := users["bob"].session.last(broken)
	switch {
	case away < 2*time.Minute && ok:
		t.Errorf("bob's open connection broke: %s", end.Text)
	case away > 2*time.Minute && !ok:
		t.Error("bob's open connection hangs")
	case ok:
		report(t, "and bob's open connection, which the gateway had given up, ended after", end.At.Sub(back).Round(100*time.Millisecond))
	}
	alice.podnet("disconnect").must(t)
	took := eventually(t, 90*time.Second, "a laptop that comes now is let in", func() error {
		if r := alice.podnet("connect", "--wait", "-n", "shop").try(t); r.code != 0 {
			return errors.New(r.stderr)
		}
		return nil
	})
	report(t, "[34] a laptop that comes once it is back is let in after", (time.Since(back)).Round(100*time.Millisecond))
	if !within(took, 10*time.Second) {
		t.Errorf("a new laptop had to try for %v", took)
	}
}
