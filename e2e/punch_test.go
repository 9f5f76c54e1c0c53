//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHolesArePunched has the gateway without any port on the nodes, and
// laptop and node each behind a box that lets in answers only.
func TestHolesArePunched(t *testing.T) {
	calm(t)
	lab("nat", "node1").must(t)
	installed(t, "--stun", "198.51.100.78:3478", "--stun", "stun2.example.test:3478")
	// In this order the gateway, which asks every 20 s, learns the least often
	// that its node's NAT is another one.
	for _, c := range []struct {
		name         string
		laptop, node []string // how "lab nat" is called; nil: no NAT
		path         string   // that must be in use within 5 s
		says         string   // what the reason for another path must have
	}{
		{"homes on both sides", []string{}, []string{}, "udp", ""},
		{"open laptop, node behind a NAT", nil, []string{}, "udp", ""},
		{"sequential laptop: ports are guessed", []string{"--sequential"}, []string{}, "udp", ""},
		{"symmetric laptop", []string{"--symmetric"}, []string{}, "apiserver", "symmetric"},
		{"home laptop, node's masquerade only", []string{}, nil, "udp", ""},
		{"UDP dropped", nil, nil, "apiserver", "STUN"},
		{"symmetric node", []string{}, []string{"--symmetric"}, "apiserver", "symmetric"},
	} {
		t.Run(c.name, func(t *testing.T) {
			calm(t)
			for m, how := range map[string][]string{"laptop": c.laptop, "node1": c.node} {
				if how != nil {
					lab(append([]string{"nat", m}, how...)...).must(t)
				}
			}
			if c.says == "STUN" {
				lab("drop-udp", "laptop").must(t)
			}
			awaitCandidates(t, c.node)

			began := time.Now()
			alice.connect(t, "-n", "shop")
			connected := time.Since(began)
			paths := alice.start(t, "watch")
			defer func() { paths.stop() }()
			if c.path == "udp" {
				took := connected + paths.waitPath(t, "udp", began.Add(connected), 15*time.Second)
				report(t, "punched, "+c.name+" (udp within 5 s of connect)", fmt.Sprintf("%.2f s, connected after %.2f s, %s",
					took.Seconds(), connected.Seconds(), alice.connection(t).Path.Remote))
				if !within(took, 5*time.Second) {
					t.Errorf("udp only after %v", took)
				}
			} else {
				time.Sleep(6 * time.Second)
			}
			now := alice.connection(t)
			if now.Path.Kind != c.path {
				t.Errorf("the path is %q, want %s: %+v", now.Path.Kind, c.path, now.Path)
			}
			if c.says != "" {
				report(t, "not punched, "+c.name, now.Path.Reason)
				if !strings.Contains(now.Path.Reason, c.says) {
					t.Errorf("the reason %q does not say %q", now.Path.Reason, c.says)
				}
			}
			alice.cmd("curl", "-sS", "--max-time", "5", "http://web.shop").must(t)
		})
	}
}

// awaitCandidates waits until the gateway has learnt how its node is seen now.
func awaitCandidates(t *testing.T, nat []string) {
	t.Helper()
	want := "203.0.113." // the edge's
	switch {
	case nat == nil:
		want = "10.77.1.2:"
	case len(nat) > 0:
		want = "dependent"
	}
	seen := func() string {
		return kubectl("get", "peers", "-n", "podnet-system", "-o", `jsonpath={range .items[*].status.gateways[*]}{.candidates} {.nat}{end}`).must(t)
	}
	// Somebody must be there for the gateway to tell it to.
	bob.connect(t, "-n", "shop")
	took := eventually(t, 60*time.Second, "the gateway's candidates", func() error {
		if got := seen(); !strings.Contains(strings.ReplaceAll(got, "independent", ""), want) {
			return fmt.Errorf("they are %q, want %s", got, want)
		}
		return nil
	})
	t.Logf("the gateway publishes %s after %v", seen(), took.Round(100*time.Millisecond))
	bob.podnet("disconnect").must(t)
}

// TestPunchedHoleMoves has the laptop's NAT forget the hole in mid-session, and
// the connection to the API server with it: for a while nothing works at all.
func TestPunchedHoleMoves(t *testing.T) {
	calm(t)
	lab("nat", "laptop").must(t)
	lab("nat", "node1").must(t)
	installed(t, "--stun", "198.51.100.78:3478", "--stun", "198.51.100.79:3478")
	awaitCandidates(t, []string{})
	alice.connect(t, "-n", "shop")
	paths := alice.start(t, "watch")
	paths.waitPath(t, "udp", time.Now(), 15*time.Second)
	session := alice.start(t, "echo", podAddress(t, "app=db")+":5432")
	time.Sleep(2 * time.Second)

	began := time.Now()
	lab("nat", "laptop", "--rebind").must(t)
	time.Sleep(100 * time.Millisecond)
	first := paths.waitPath(t, "apiserver", began, 15*time.Second)
	back := paths.waitPath(t, "udp", began, 60*time.Second)
	time.Sleep(2 * time.Second)
	echoed := session.stop()
	session.unbroken(t)
	still := longest(echoed, began, time.Now())
	report(t, "hole forgotten by the NAT: longest silence (at most 5 s)", fmt.Sprintf("%.2f s; on apiserver after %.2f s, on udp after %.2f s (at most 15 s)",
		still.Seconds(), first.Seconds(), back.Seconds()))
	if !within(still, 5*time.Second) || !within(back, 15*time.Second) {
		t.Errorf("silent for %v, udp after %v", still, back)
	}
}
