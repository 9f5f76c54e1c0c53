//go:build e2e

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// examine is a run of podnet doctor.
func (m machine) examine(t *testing.T, args ...string) (all []localapi.Finding, code int) {
	t.Helper()
	return examined(t, m.podnet(append([]string{"doctor", "-o", "json"}, args...)...))
}

// examined are the findings of a run of podnet doctor -o json.
func examined(t *testing.T, doctor command) (all []localapi.Finding, code int) {
	t.Helper()
	r := doctor.try(t)
	var list struct{ Findings []localapi.Finding }
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v in:\n%s%s", err, r.stdout, r.stderr)
	}
	return list.Findings, r.code
}

// finds fails the test unless one of the findings is of this kind, and says so.
func finds(t *testing.T, all []localapi.Finding, check string, result localapi.Result, words string) {
	t.Helper()
	var said []string
	for _, f := range all {
		if f.Check != check {
			continue
		}
		if f.Result == result && strings.Contains(f.Text, words) {
			if f.Fix == "" && result == localapi.ResultProblem {
				t.Errorf("no fix for: %s", f.Text)
			}
			return
		}
		said = append(said, string(f.Result)+": "+f.Text)
	}
	t.Errorf("%s: no %s with %q, but %q", check, result, words, said)
}

// TestDoctor breaks one thing after the other, and has alice ask why.
func TestDoctor(t *testing.T) {
	calm(t)
	t.Cleanup(func() { lab("start", "apiserver").must(t) })
	for _, c := range []struct {
		name    string
		trouble func()
		ns      string
		check   string
		result  localapi.Result
		words   string
		code    int
	}{
		{"nothing", func() {}, "shop", "path/udp", localapi.ResultOK, ":31820 of podnet-gateway-0 answers in", 0},
		{"UDP is dropped", func() { lab("drop-udp", "laptop").must(t) }, "shop",
			"path/udp", localapi.ResultWarning, ":31820 of podnet-gateway-0 does not answer", 0},
		{"a narrow line", func() { lab("wire", "laptop", "--mtu", "1280").must(t) }, "shop",
			"path/mtu", localapi.ResultWarning, "a link on the way is narrow", 0},
		{"a permission is missing", func() {}, "kube-system",
			"permission/create", localapi.ResultProblem, "may not create pods/portforward in namespace kube-system", 1},
		{"the API server is away", func() { lab("stop", "apiserver").must(t) }, "shop",
			"cluster/connection", localapi.ResultProblem, ":6443", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.trouble()
			began := time.Now()
			all, code := alice.examine(t, "-n", c.ns)
			finds(t, all, c.check, c.result, c.words)
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			t.Logf("%d findings in %v", len(all), time.Since(began).Round(100*time.Millisecond))
			lab("heal").must(t)
		})
	}
}

// TestDoctorKnowsTheNATs at both ends, and leaves nothing of its own enrolment.
func TestDoctorKnowsTheNATs(t *testing.T) {
	calm(t)
	lab("nat", "laptop", "--symmetric").must(t)
	lab("nat", "node1").must(t)
	installed(t, "--stun", "198.51.100.78:3478", "--stun", "198.51.100.79:3478")
	awaitCandidates(t, []string{})
	all, code := alice.examine(t, "-n", "shop")
	finds(t, all, "path/stun", localapi.ResultOK, "STUN server 198.51.100.78:3478 sees us as 203.0.113.22:")
	finds(t, all, "path/nat", localapi.ResultWarning, "the NAT in front of this machine gives every destination another port (symmetric)")
	finds(t, all, "path/nat", localapi.ResultOK, "the NAT in front of podnet-gateway-0 keeps one port for all destinations")
	if code != 0 {
		t.Errorf("exit %d, though the session works through the API server", code)
	}
	if left := kubectl("get", "peers,accesses", "-A", "-o", "name").must(t); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
}

// TestStatusOnATerminal is watched there while the path changes.
func TestStatusOnATerminal(t *testing.T) {
	calm(t)
	alice.connect(t, "-n", "shop")
	alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
	screen := make(chan string, 1)
	go func() {
		screen <- alice.sh("script -qec 'timeout --foreground --preserve-status -s INT 8 " + filepath.Join(top, "bin/podnet") + " status --watch' /dev/null").must(t)
	}()
	time.Sleep(2 * time.Second)
	lab("drop-udp", "laptop").must(t)
	want(t, <-screen, "udp ", "apiserver", "not answered")
}
