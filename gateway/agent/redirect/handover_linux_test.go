package redirect

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"podnet.dev/internal/testpod"
)

// TestOnlyDatagramsAreTracked: the kernel has no work with the packets of a pod whose
// TCP ports alone are steered.
func TestOnlyDatagramsAreTracked(t *testing.T) {
	inPod(t, func(t *testing.T) {
		if _, err := os.Stat(tracked); err != nil {
			t.Skipf("this kernel tracks nothing: %v", err)
		}
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		far, table := host(t, 1), openTable(t)
		count := func() string {
			t.Helper()
			for _, a := range []string{"10.99.1.1:8080", "[fd99:1::1]:8080"} {
				if got := far.Say("who tcp " + a); got != "agent" {
					t.Errorf("%s: %s", a, got)
				}
			}
			b, err := os.ReadFile(tracked)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(b))
		}
		set(t, table, both[:1])
		if n := count(); n != "0" {
			t.Errorf("%s connections are tracked", n)
		}
		set(t, table, both)
		if n := count(); n == "0" {
			t.Error("nothing is tracked")
		}
		if got := far.Say("who udp 10.99.1.1:8080"); got != "agent" {
			t.Errorf("UDP: %s", got)
		}
	})
}

const tracked = "/proc/sys/net/netfilter/nf_conntrack_count"

// TestMarksAreTakenAway: where the agent's connections could come back to it, TCP is
// not handed over.
func TestMarksAreTakenAway(t *testing.T) {
	inPod(t, func(t *testing.T) {
		nft(t, "add table inet firewall; add chain inet firewall out { type filter hook output priority 0; }; add rule inet firewall out meta mark set 1")
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		agent := testpod.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: agentGroup}})
		table, err := Open("test", agentGroup)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		if why := table.Translates(); why == nil || !strings.Contains(why.Error(), "leave a marked connection alone") {
			t.Errorf("translates: %v", why)
		}
		keep(t, table, both)
		if got := who("tcp", "127.0.0.1:8080"); got != "agent" {
			t.Errorf("somebody: %s", got)
		}
		if got := agent.Say("own tcp 127.0.0.1:8080"); got != "app" {
			t.Errorf("the agent: %s", got)
		}
	})
}

// TestCookiesForEverybody: a handshake that ends in a cookie ends at the app.
func TestCookiesForEverybody(t *testing.T) {
	inPod(t, func(t *testing.T) {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0); err != nil {
			t.Skipf("this kernel has no cookies: %v", err)
		}
		serve(t, "agent", agentPort)
		table, err := Open("test", agentGroup)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		if why := table.Translates(); why == nil || !strings.Contains(why.Error(), "hand a connection over") {
			t.Errorf("translates: %v", why)
		}
		keep(t, table, both)
		if got := who("tcp", "127.0.0.1:8080"); got != "agent" {
			t.Error(got)
		}
	})
}

// TestMeshThatHandsOver: what a mesh has given to its own proxy in the same way is the
// proxy's, and what that hands on to the app goes to the agent.
func TestMeshThatHandsOver(t *testing.T) {
	inPod(t, func(t *testing.T) {
		nft(t, "add table inet mesh; add chain inet mesh pre { type filter hook prerouting priority -150; }; "+
			"add rule inet mesh pre iifname eth1 tcp dport 8080 tproxy to :15006 accept")
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		far, proxy := host(t, 1), testpod.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 1337}})
		if got := proxy.Say("take proxy 15006"); got != "take <nil>" {
			t.Fatal(got)
		}
		keep(t, openTable(t), both)
		for _, a := range []string{"10.99.1.1:8080", "[fd99:1::1]:8080"} {
			if got := far.Say("who tcp " + a); got != "proxy" {
				t.Errorf("from outside at %s: %s", a, got)
			}
			if got := proxy.Say("who tcp " + a); got != "agent" {
				t.Errorf("the proxy at %s: %s", a, got)
			}
		}
	})
}

// TestMeshCallsItsOwnPod: what a mesh's proxy sends to the pod that it is in, and the
// mesh has come in by the proxy again, is the proxy's.
func TestMeshCallsItsOwnPod(t *testing.T) {
	inPod(t, func(t *testing.T) {
		nft(t, "add table ip mesh; add chain ip mesh out { type nat hook output priority -100; }; "+
			"add rule ip mesh out oif lo ip daddr != 127.0.0.0/8 meta skgid 1337 tcp dport 8080 redirect to :15006")
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		ip(t, "addr add 10.99.9.1/32 dev lo")
		proxy := testpod.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 1337}})
		if got := proxy.Say("serve proxy 15006"); got != "serve <nil>" {
			t.Fatal(got)
		}
		keep(t, openTable(t), both)
		if got := proxy.Say("who tcp 10.99.9.1:8080"); got != "proxy" {
			t.Errorf("the proxy at its own pod: %s", got)
		}
		if got := proxy.Say("who tcp 127.0.0.1:8080"); got != "agent" {
			t.Errorf("the proxy at the app: %s", got)
		}
	})
}

// TestPortTakenAgain: a client takes the port again of a connection that the pod has
// ended, and of which the kernel remembers with whom it was.
func TestPortTakenAgain(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "app", appPort)
		serve(t, "agent", agentPort)
		far, table := host(t, 1), openTable(t)
		for i, steered := range []bool{false, true, true, false, true} {
			want, ports := "app", []Port(nil)
			if steered {
				want, ports = "agent", both
			}
			set(t, table, ports)
			for _, a := range []string{"10.99.1.1:8080", "[fd99:1::1]:8080"} {
				if got := far.Say("from 5555 " + a); got != want {
					t.Errorf("connection %d to %s: %s, want %s", i+1, a, got, want)
				}
			}
		}
	})
}

// TestAppBeginsAgain: connections that the agent holds at the app's port do not keep
// the app from listening there again.
func TestAppBeginsAgain(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		serve(t, "agent", agentPort)
		l, err := listen(":8080", nil)
		if err != nil {
			t.Fatal(err)
		}
		keep(t, openTable(t), both)
		held := dial(t, "tcp", "127.0.0.1:8080")
		if got := ask(held); got != "agent" {
			t.Fatal(got)
		}
		l.Close()
		if l, err = listen(":8080", nil); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := ask(held); got != "agent" {
			t.Error(got)
		}
	})
}
