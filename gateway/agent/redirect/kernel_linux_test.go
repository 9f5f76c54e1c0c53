package redirect

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/testpod"
)

// lateness is how much later than the Timeout an element may be seen to work: a
// busy machine, and one attempt that began in time.
const lateness = 2 * time.Second

func TestPortLeadsToAgent(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "other", 8081)
		serve(t, "agent", agentPort)
		far := host(t, 1)
		table := openTable(t)
		here := []string{"127.0.0.1", "[::1]", "10.99.1.1", "[fd99:1::1]"}
		want := func(name string) {
			t.Helper()
			for _, network := range []string{"tcp", "udp"} {
				for i, a := range here {
					a = fmt.Sprintf("%s:%d", a, appPort)
					if got := who(network, a); got != name {
						t.Errorf("%s %s: %s, want %s", network, a, got, name)
					}
					if i < 2 {
						continue // the host has a loopback of its own
					}
					if got := far.Say("who " + network + " " + a); got != name {
						t.Errorf("%s %s from the host: %s, want %s", network, a, got, name)
					}
				}
			}
		}
		want("app")
		stop := keep(t, table, append(both, Port{TCP, 9000, agentPort}))
		want("agent")
		if got := who("tcp", "127.0.0.1:8081"); got != "other" {
			t.Errorf("another port: %s", got)
		}
		stop()
		set(t, table, both[:1])
		if got := who("udp", "127.0.0.1:8080"); got != "app" {
			t.Errorf("UDP, no longer redirected: %s", got)
		}
		set(t, table, nil)
		want("app")
	})
}

func TestAgentReachesApp(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		ip(t, "addr add 10.99.9.1/32 dev lo")
		agent := testpod.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: agentGroup}})
		keep(t, openTable(t), both)
		for _, network := range []string{"tcp", "udp"} {
			for _, a := range []string{"127.0.0.1:8080", "[::1]:8080", "10.99.9.1:8080"} {
				if got := agent.Say("own " + network + " " + a); got != "app" {
					t.Errorf("the agent at %s %s: %s", network, a, got)
				}
				if got := who(network, a); got != "agent" {
					t.Errorf("somebody else at %s %s: %s", network, a, got)
				}
			}
		}
	})
}

func TestAgentPortIsNoWayAround(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "agent", agentPort)
		far := host(t, 1)
		table := openTable(t)
		stop := keep(t, table, both)
		for _, network := range []string{"tcp", "udp"} {
			for _, a := range []string{"127.0.0.1:15001", "[::1]:15001"} {
				if got := who(network, a); !strings.Contains(got, "timeout") {
					t.Errorf("%s %s: %s", network, a, got)
				}
			}
			for _, a := range []string{"10.99.1.1:15001", "[fd99:1::1]:15001"} {
				if got := far.Say("who " + network + " " + a); !strings.Contains(got, "timeout") {
					t.Errorf("%s %s from the host: %s", network, a, got)
				}
			}
		}
		stop()
		set(t, table, nil) // the port is nobody's now
		if got := who("tcp", "127.0.0.1:15001"); got != "agent" {
			t.Errorf("a port that is no longer the agent's: %s", got)
		}
	})
}

// TestSilentAgentLosesPort: no Set, no Close, and yet the app serves again; UDP
// clients too that never stop sending from one port.
func TestSilentAgentLosesPort(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		table := openTable(t)
		old := dial(t, "udp", "127.0.0.1:8080")
		if got := ask(old); got != "app" {
			t.Fatalf("before: %s", got)
		}
		set(t, table, both)
		began := time.Now()
		late := dial(t, "udp", "[::1]:8080")
		for name, c := range map[string]net.Conn{"old": old, "late": late, "TCP": dial(t, "tcp", "127.0.0.1:8080")} {
			if got := ask(c); got != "agent" {
				t.Errorf("%s: %s", name, got)
			}
		}
		for name, answer := range map[string]func() string{
			"TCP":          func() string { return who("tcp", "127.0.0.1:8080") },
			"UDP":          func() string { return who("udp", "127.0.0.1:8080") },
			"old UDP flow": func() string { return ask(old) }, "late UDP flow": func() string { return ask(late) },
		} {
			until(t, Timeout+lateness, name, func() bool { return answer() == "app" })
			t.Logf("%s: the app again after %v", name, time.Since(began).Round(time.Millisecond))
		}
		if got := who("tcp", "127.0.0.1:15001"); got != "agent" {
			t.Errorf("the guard outlived the redirection: %s", got)
		}
		set(t, table, both)
		if got := who("tcp", "127.0.0.1:8080"); got != "agent" {
			t.Errorf("the agent is back: %s", got)
		}
	})
}

// TestOpenConnectionsContinue: where a TCP connection began, it stays. The first
// one is older than connection tracking in the pod.
func TestOpenConnectionsContinue(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		far := host(t, 1)
		if got := far.Say("who tcp 10.99.1.1:8080"); got != "app" {
			t.Fatal(got)
		}
		first, first6 := dial(t, "tcp", "127.0.0.1:8080"), dial(t, "tcp", "[::1]:8080")
		table := openTable(t)
		second := dial(t, "tcp", "127.0.0.1:8080")
		stop := keep(t, table, both)
		redirected := dial(t, "tcp", "127.0.0.1:8080")
		want := func(when string) {
			t.Helper()
			for _, c := range []net.Conn{first, first6, second} {
				if got := ask(c); got != "app" {
					t.Errorf("%s: %s, want app", when, got)
				}
			}
			if got := ask(redirected); got != "agent" {
				t.Errorf("%s: %s, want agent", when, got)
			}
		}
		want("redirected")
		time.Sleep(2 * RefreshEvery)
		want("refreshed")
		stop()
		set(t, table, nil)
		want("taken back")
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		if got := ask(redirected); way(t) == translated && !strings.Contains(got, "reset") {
			t.Errorf("redirected, and nobody translates: %s", got)
		} else if way(t) == handedOver && got != "agent" {
			t.Errorf("handed over, and the table is gone: %s", got)
		}
		for _, c := range []net.Conn{first, first6, second} {
			if got := ask(c); got != "app" {
				t.Errorf("after all: %s", got)
			}
		}
	})
}

// TestRefreshIsSeamless: each Set removes what it adds, and no connection sees
// it.
func TestRefreshIsSeamless(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		table := openTable(t)
		set(t, table, both)
		quit, done := make(chan struct{}), make(chan struct{})
		var sets atomic.Int64
		go func() {
			defer close(done)
			for {
				select {
				case <-quit:
					return
				case <-time.After(2 * time.Millisecond):
				}
				if err := table.Set(both); err != nil {
					t.Error(err)
				}
				sets.Add(1)
			}
		}()
		least := int64(500)
		if os.Getenv("PODNET_E2E_LONG") != "" {
			least = 10000
		}
		connections, missed := 0, 0
		for ; sets.Load() < least; connections++ {
			if got := who([]string{"tcp", "udp"}[connections%2], "127.0.0.1:8080"); got != "agent" {
				missed++
				t.Logf("connection %d: %s", connections, got)
			}
		}
		close(quit)
		<-done
		t.Logf("MEASURED [45] refreshes while connections begin, and those that went to the wrong side  %d, and %d of %d", sets.Load(), missed, connections)
		if missed > 0 {
			t.Error("a refresh was seen")
		}
	})
}

// TestMeshKeepsItsPlace: a mesh's proxy gets what comes from outside, and what
// it hands on to the app goes to the agent.
func TestMeshKeepsItsPlace(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		nft(t, "add table ip mesh; add chain ip mesh pre { type nat hook prerouting priority -100; }; add rule ip mesh pre tcp dport 8080 redirect to :15006")
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		far, proxy := host(t, 1), testpod.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 1337}})
		if got := proxy.Say("serve proxy 15006"); got != "serve <nil>" {
			t.Fatal(got)
		}
		keep(t, openTable(t), both)
		if got := far.Say("who tcp 10.99.1.1:8080"); got != "proxy" {
			t.Errorf("from outside: %s", got)
		}
		for _, a := range []string{"127.0.0.1:8080", "10.99.1.1:8080"} {
			if got := proxy.Say("who tcp " + a); got != "agent" {
				t.Errorf("the proxy at %s: %s", a, got)
			}
		}
	})
}

// killMe is an agent that works until it is killed.
func killMe() {
	table, err := openBy(os.Getenv("PODNET_TEST_WAY"), "test")
	if err == nil {
		_, err = listen(fmt.Sprintf(":%d", agentPort), ControlListener) // and never accepts
	}
	for ; err == nil; time.Sleep(RefreshEvery) {
		if err = table.Set(both); err == nil {
			fmt.Println("set")
		}
	}
	fmt.Println(err)
}

func TestKilledAgent(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=agent", "PODNET_TEST_WAY="+way(t))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 2 { // a Set, and the refresh
			if !lines.Scan() || lines.Text() != "set" {
				t.Fatalf("the agent: %s", lines.Text())
			}
		}
		if got := who("tcp", "127.0.0.1:8080"); got == "app" {
			t.Error("the port was not redirected")
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if rules := nft(t, "list", "ruleset"); rules != "" {
			t.Errorf("the table is left:\n%s", rules)
		}
		for _, network := range []string{"tcp", "udp"} {
			if got := who(network, "127.0.0.1:8080"); got != "app" {
				t.Errorf("%s after SIGKILL: %s", network, got)
			}
		}

		table := openTable(t)
		set(t, table, both)
		if got := who("udp", "127.0.0.1:8080"); got == "app" {
			t.Error("the port is not redirected again")
		}
		for range 2 {
			if err := table.Close(); err != nil {
				t.Error(err)
			}
			if err := Remove("test"); err != nil {
				t.Error(err)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			if got := who(network, "127.0.0.1:8080"); got != "app" {
				t.Errorf("%s after Close: %s", network, got)
			}
		}
		if err := table.Set(both); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Set after Close: %v", err)
		}
	})
}

// TestNobodyElseRemovesTheTable: who flushes the pod's rules, as a restarted mesh
// may, leaves it.
func TestNobodyElseRemovesTheTable(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		table := openTable(t)
		set(t, table, both)
		nft(t, "flush", "ruleset")
		if err := Remove("test"); err == nil {
			t.Error("the table of a process that lives was removed")
		}
		set(t, table, both)
		if got := who("tcp", "127.0.0.1:8080"); got != "agent" {
			t.Errorf("after a flush: %s", got)
		}
	})
}

// TestATableWithoutAnOwner is how it is before Linux 5.12.
func TestATableWithoutAnOwner(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		nft(t, "-f", golden(t)) // left by an agent that died
		old := newRuleset("podnet_golden", agentGroup)
		s, err := openSocket()
		if err != nil {
			t.Fatal(err)
		}
		old.replace(s.Conn)
		err = old.install(s.Conn)
		if way(t) == handedOver {
			old.handOver(s.Conn)
		} else {
			old.translate(s.Conn, TCP)
		}
		if err := errors.Join(err, old.fill(s.Conn, both), s.Flush(), s.CloseLasting()); err != nil {
			t.Fatal(err)
		}
		if got := who("tcp", "127.0.0.1:8080"); got != "agent" {
			t.Errorf("before: %s", got)
		}
		if err := Remove("golden"); err != nil {
			t.Error(err)
		}
		if rules := nft(t, "list", "ruleset"); rules != "" {
			t.Errorf("left:\n%s", rules)
		}
	})
}

// TestRouterKeepsRouting: what passes through the pod is not the pod's.
func TestRouterKeepsRouting(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "agent", agentPort)
		one, two := host(t, 1), host(t, 2)
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			t.Skipf("cannot route: %v", err)
		}
		if got := two.Say("serve two 8080"); got != "serve <nil>" {
			t.Fatal(got)
		}
		keep(t, openTable(t), both)
		if got := one.Say("who tcp 10.99.2.2:8080"); got != "two" {
			t.Errorf("through the pod: %s", got)
		}
		if got := one.Say("who tcp 10.99.2.1:8080"); got != "agent" {
			t.Errorf("to the pod: %s", got)
		}
	})
}

// TestWithoutPermission: a process of a user namespace of its own may do all in
// there, and nothing to the pod.
func TestWithoutPermission(t *testing.T) {
	inPod(t, func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=nobody")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("no user namespace: %v: %s", err, out)
		}
		if !strings.HasPrefix(string(out), "refused: make table podnet_test: nftables: not permitted") {
			t.Errorf("got %s", out)
		}
	})
}
