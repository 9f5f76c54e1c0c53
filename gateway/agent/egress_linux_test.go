package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/gateway/egress"
	"podnet.dev/gateway/steering"
	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
)

// nobody has no capability in the pod's network, and no group of its own.
var nobody = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}

// podAddr is another address of the pod than its loopback's.
const podAddr = "10.244.0.17"

// let makes the agent of a key a peer of the tunnel through which flows may leave
// by rules with these names.
func (g *fakeGateway) let(h control.Hello, rules ...string) {
	g.t.Helper()
	k := h.PublicKey
	if err := g.tunnel.SetPeers([]tunnel.Peer{{PublicKey: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(k.Address6(), 128)}}}); err != nil {
		g.t.Fatal(err)
	}
	g.server.SetAgents([]steering.Agent{{Key: k, PodUID: podUID, Namespace: "shop", Pod: "web", Egress: rules}}, func(netip.Addr) bool { return false })
}

func (g *fakeGateway) exit(h control.Hello) egress.Exit {
	return egress.Exit{Agent: h.PublicKey.Address6(), Self: g.key.Address6(), Rule: "alice-out", Stack: g.stack}
}

// target serves TCP and UDP, which it gives back, at the pod's address.
func target(t *testing.T) (tcp, udp netip.AddrPort) {
	t.Helper()
	if out, err := exec.Command("ip", "addr", "add", podAddr+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", podAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", podAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(l.Close(), c.Close()) })
	go echo(c, "target")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestFlowsLeaveAsThePod is the life of an agent that only lets flows out: it runs
// as nobody, touches nothing, and goes when nobody sends as the pod any more.
func TestFlowsLeaveAsThePod(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var one, two *fakeGateway
		all := func() []control.Gateway { return []control.Gateway{one.entry(), two.entry()} }
		one, two = newGateway(t, all), newGateway(t, all)
		tcp, udp := target(t)
		before := ruleset(t)
		agent := startWith(t, nobody, []string{"--no-redirect"}, one)
		if agent.hello.PublicKey.IsZero() || agent.hello.Error != "" {
			t.Fatalf("hello: %+v", agent.hello)
		}
		one.let(agent.hello, "alice-out")
		two.admit(agent.hello.PublicKey, false)
		until(t, 3*time.Second+late, "the gateways hear that it is in force", func() bool {
			r, ok := one.server.Report(agent.hello.PublicKey)
			_, also := two.server.Report(agent.hello.PublicKey)
			return ok && also && r.InForce["alice-out"]
		})

		exit := one.exit(agent.hello)
		began := time.Now()
		c, err := exit.DialTCP(t.Context(), tcp)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("a flow is open after %v", time.Since(began).Round(time.Microsecond))
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
		go func() {
			_, _ = c.Write(body)
			_ = splice.CloseWrite(c)
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back of %d: %v", len(got), len(body), err)
		}
		d, err := exit.DialUDP(t.Context(), udp)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, n := range []int{10, 1400, 60000} {
			if err := d.Send(append([]byte("echo"), body[:n]...)); err != nil {
				t.Fatal(err)
			}
			if got, err := d.Next(); err != nil || got != n+4 || d.Receive(make([]byte, got)) != nil {
				t.Errorf("a datagram of %d bytes came back as one of %d: %v", n+4, got, err)
			}
		}
		for to, want := range map[string]error{
			podAddr + ":9": syscall.ECONNREFUSED, "127.0.0.1:" + strconv.Itoa(int(tcp.Port())): syscall.EACCES, "192.0.2.1:80": syscall.ENETUNREACH,
		} {
			if _, err := exit.DialTCP(t.Context(), netip.MustParseAddrPort(to)); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", to, err, want)
			}
		}
		if _, err := two.exit(agent.hello).DialTCP(t.Context(), tcp); !errors.Is(err, syscall.EACCES) {
			t.Errorf("by a gateway that has no such rule: %v", err)
		}
		if after := ruleset(t); after != before {
			t.Errorf("the pod has rules now: %s", after)
		}
		until(t, control.Beat+late, "the gateway hears how many flows there were", func() bool {
			r, ok := one.server.Report(agent.hello.PublicKey)
			return ok && r.Counts["alice-out"] == control.Counts{Matched: 5, Failed: 3}
		})

		open, err := exit.DialTCP(t.Context(), tcp)
		if err != nil {
			t.Fatal(err)
		}
		_ = open.SetDeadline(time.Now().Add(10 * time.Second))
		one.let(agent.hello)
		if _, err := open.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a flow whose rule is gone: %v", err)
		}
		if status := agent.ends(late); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}

// TestAnAgentWithoutPrivilegeTakesNothing: rules that want the pod's traffic hear
// that they need another agent, and what leaves by this one goes on.
func TestAnAgentWithoutPrivilegeTakesNothing(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		tcp, _ := target(t)
		agent := startWith(t, nobody, []string{"--no-redirect"}, g)
		g.let(agent.hello, "alice-out")
		g.server.SetAgents([]steering.Agent{{Key: agent.hello.PublicKey, PodUID: podUID, Chosen: true, Egress: []string{"alice-out"},
			Rules: []control.Rule{laptop.rule("alice-web")}}}, func(netip.Addr) bool { return true })
		until(t, 3*time.Second+late, "the gateway hears of the trouble", func() bool {
			r, ok := g.server.Report(agent.hello.PublicKey)
			return ok && strings.Contains(r.Error, "--no-redirect") && r.InForce["alice-out"]
		})
		if got := get("alice"); got != "app" {
			t.Errorf("%s answers", got)
		}
		c, err := g.exit(agent.hello).DialTCP(t.Context(), tcp)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}

// TestAnAgentThatRedirectsLetsFlowsOutAsWell: and stays when its rules are gone.
func TestAnAgentThatRedirectsLetsFlowsOutAsWell(t *testing.T) {
	inPod(t, func(t *testing.T) {
		var g *fakeGateway
		g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
		laptop := newLaptop(t, "laptop", g)
		newApp(t)
		tcp, _ := target(t)
		before := ruleset(t)
		agent := start(t, group, g)
		g.let(agent.hello, "alice-out")
		g.server.SetAgents([]steering.Agent{{Key: agent.hello.PublicKey, PodUID: podUID, Chosen: true, Egress: []string{"alice-out"},
			Rules: []control.Rule{laptop.rule("alice-web")}}}, func(netip.Addr) bool { return true })
		until(t, 3*time.Second+late, "the laptop answers", func() bool { return get("alice") == "laptop" })
		open, err := g.exit(agent.hello).DialTCP(t.Context(), tcp)
		if err != nil {
			t.Fatal(err)
		}
		g.let(agent.hello, "alice-out")
		until(t, 3*time.Second+late, "the app answers", func() bool { return get("alice") == "app" && ruleset(t) == before })
		_ = open.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := open.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
			t.Errorf("a flow that is open: %v", err)
		}
		_ = open.Close()
	})
}
