//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// misfortune is something that happens in the middle of a session.
type misfortune struct {
	name  string
	limit time.Duration // longest silence that a connection inside may have
	path  string        // that must be in use within 15 s, or at once
	after time.Duration // how long to look on from then
	do    func(t *testing.T)
}

// misfortunes are what issue "Paths and sessions that never die silently"
// lists, for alice on the first laptop behind a NAT.
var misfortunes = []misfortune{
	{"UDP cut", 3 * time.Second, "apiserver", 4 * time.Second, func(t *testing.T) { lab("drop-udp", "laptop").must(t) }},
	{"stream killed in use", 3 * time.Second, "apiserver", 5 * time.Second, killStreams},
	{"UDP back", 3 * time.Second, "udp", 4 * time.Second, func(t *testing.T) { lab("drop-udp", "laptop", "--off").must(t) }},
	{"stream killed as stand-by", 3 * time.Second, "udp", 3 * time.Second, killStreams},
	{"node's link down for 1 s", 3 * time.Second, "udp", 6 * time.Second, func(t *testing.T) {
		lab("link", "node1", "down").must(t)
		time.Sleep(time.Second)
		lab("link", "node1", "up").must(t)
	}},
	{"[31] laptop's address changed", 5 * time.Second, "udp", 8 * time.Second, func(t *testing.T) { lab("move", "laptop", "1").must(t) }},
	{"NAT rebound", 3 * time.Second, "udp", 8 * time.Second, func(t *testing.T) { lab("nat", "laptop", "--rebind").must(t) }},
	{"[31] address changed back", 5 * time.Second, "udp", 8 * time.Second, func(t *testing.T) { lab("move", "laptop", "0").must(t) }},
}

// killStreams ends every TCP connection of the laptop to the API server, as a
// proxy does that restarts.
func killStreams(t *testing.T) {
	if laptop1.sh("ss -HK state established dport = :6443").must(t) == "" {
		t.Error("there was no stream to kill")
	}
}

// TestConnectionsOutlivePaths has an open echo session, as of ssh, and an
// iperf3 both ways go through everything that happens to a laptop in a day.
//
// Nothing may break, ever. How long nothing moves is the kernel's doubling timers
// as well as ours: on a machine that others keep busy they start later, and the
// next one may be the one that is too late. So the short form believes a silence
// that is too long when it meets with it twice.
func TestConnectionsOutlivePaths(t *testing.T) {
	var late []string
	tell := func(t *testing.T) { late = outlive(t) }
	if t.Run("a day", tell) && len(late) > 0 && !long {
		t.Logf("once more, because of %q", late)
		t.Run("another", tell)
	}
	for _, what := range late {
		t.Error(what)
	}
}

// outlive tells the story and returns what was silent for too long.
func outlive(t *testing.T) (late []string) {
	t.Helper()
	calm(t)
	lab("nat", "laptop").must(t)
	alice.connect(t, "-n", "shop")
	db := podAddress(t, "app=db")
	serve(t, netns(t, db))
	paths := alice.start(t, "watch")
	paths.waitPath(t, "udp", time.Now(), 15*time.Second)
	session := alice.start(t, "echo", db+":5432")
	load := alice.start(t, "bulk", db)
	time.Sleep(3 * time.Second) // how it is when nothing happens

	type chapter struct {
		misfortune
		from, to time.Time
		onPath   time.Duration
	}
	var told []chapter
	end := time.Now().Add(lasting(0, 10*time.Minute))
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		for _, m := range misfortunes {
			c := chapter{misfortune: m, from: time.Now()}
			m.do(t)
			happened := time.Now()
			time.Sleep(100 * time.Millisecond)
			c.onPath = paths.waitPath(t, m.path, happened, 15*time.Second)
			time.Sleep(lasting(m.after, 3*m.after))
			c.to = time.Now()
			told = append(told, c)
		}
	}
	echoed, moved := session.stop(), load.stop()
	paths.stop()
	session.unbroken(t)
	load.unbroken(t)
	report(t, "iperf3 through all of it", text(load))
	for _, c := range told {
		still, idle := longest(echoed, c.from, c.to), longest(moved, c.from, c.to)
		report(t, c.name, fmt.Sprintf("echo silent for %.2f s, iperf3 for %.2f s; on %s after %.2f s", still.Seconds(), idle.Seconds(), c.path, c.onPath.Seconds()))
		worst := max(still, idle)
		measure.AtMost(t, c.name+": longest silence", worst, c.limit)
		if !within(worst, c.limit) {
			late = append(late, fmt.Sprintf("%s: nothing moved for %v, want at most %v", c.name, worst.Round(time.Millisecond), c.limit))
		}
	}
	return late
}

// text is a role's summary.
func text(w *watcher) string {
	s, _ := w.last(done)
	return s.Text
}

// TestStreamThatLies lets the connection to the API server swallow everything
// without a word, as some load balancers do after a while: it is found out and
// dialled anew.
func TestStreamThatLies(t *testing.T) {
	calm(t)
	alice.connect(t, "-n", "shop", "--path", "apiserver")
	db := podAddress(t, "app=db")
	session := alice.start(t, "echo", db+":5432")
	time.Sleep(time.Second)

	ports := strings.Fields(laptop1.sh("ss -Htn state established dport = :6443 | awk '{print $3}' | sed 's/.*://'").must(t))
	if len(ports) == 0 {
		t.Fatal("there is no stream")
	}
	before := alice.connection(t).Path.Redials
	edge := machine{name: "laptop-edge"}
	t.Cleanup(func() { edge.sh("nft delete table inet story").try(t) })
	began := time.Now()
	edge.cmd("nft", fmt.Sprintf(`table inet story {
		chain forward {
			type filter hook forward priority -10
			tcp sport { %[1]s } tcp dport 6443 drop
			tcp sport 6443 tcp dport { %[1]s } drop
		}
	}`, strings.Join(ports, ", "))).must(t)
	eventually(t, 15*time.Second, "stream dialled anew", func() error {
		if alice.connection(t).Path.Redials == before {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	report(t, "stream that swallows everything: dialled anew (found within 5 s)", time.Since(began).Round(10*time.Millisecond))
	eventually(t, 15*time.Second, "a new connection", func() error {
		if r := alice.cmd("curl", "-sS", "--max-time", "1", "http://web.shop").try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	time.Sleep(3 * time.Second)
	echoed := session.stop()
	session.unbroken(t)
	still := longest(echoed, began, time.Now())
	report(t, "stream that swallows everything: longest silence inside", still.Round(10*time.Millisecond))
	if still > 8*time.Second {
		t.Errorf("nothing moved for %v", still)
	}
}
