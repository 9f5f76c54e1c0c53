package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/testpod"
)

const (
	agentGroup = 4242
	appPort    = 8080
)

// inPod runs the story as the agent of a pod, with a group of its own.
func inPod(t *testing.T, story func(*testing.T)) {
	t.Helper()
	testpod.Tell(t, agentGroup, story)
}

// neighbours are what the other processes, of group 0, can do.
var neighbours = map[string]func([]string) string{
	"who":  func(at []string) string { return who(at[0], at[1]) },         // NETWORK ADDRESS
	"from": func(at []string) string { return from(at[0], at[1], at[2]) }, // PORT NETWORK ADDRESS
	"mix":  mix,                                                           // SEED BYTES HOST...
	"load": func(at []string) string { // DURATION NETWORK ADDRESS
		duration, _ := time.ParseDuration(at[0])
		answers := map[string]int{}
		for began := time.Now(); time.Since(began) < duration; {
			answers[who(at[1], at[2])]++
		}
		return fmt.Sprint(answers)
	},
}

func start(t *testing.T, cloneflags uintptr) testpod.Process {
	t.Helper()
	return testpod.Start(t, &syscall.SysProcAttr{Cloneflags: cloneflags, Credential: &syscall.Credential{Gid: 0}})
}

// who answers.
func who(network, address string) string {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, "who is there?")
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.Fields(line)[0]
}

// from asks who answers from a port of its own, and has a connection broken then.
func from(port, network, address string) string {
	d := net.Dialer{Timeout: patience}
	if network == "tcp" {
		d.LocalAddr, _ = net.ResolveTCPAddr(network, ":"+port)
	} else {
		d.LocalAddr, _ = net.ResolveUDPAddr(network, ":"+port)
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(c)
	fmt.Fprintln(c, "who is there?")
	line, err := answers.ReadString('\n')
	if err == nil && network == "tcp" {
		fmt.Fprintln(c, breakOff)
		if _, err = answers.ReadByte(); errors.Is(err, syscall.ECONNRESET) {
			err = nil
		}
	}
	if err != nil {
		return err.Error()
	}
	return strings.Fields(line)[0]
}

// breakOff is what line answers by a reset.
const breakOff = "break"

// host is another host, on a cable to the pod.
func host(t *testing.T) testpod.Process {
	t.Helper()
	p := start(t, syscall.CLONE_NEWNET)
	testpod.Run(t, fmt.Sprintf("ip link add eth1 type veth peer name far netns %d", p.PID))
	for _, line := range []string{"ip addr add 10.99.1.1/24 dev eth1", "ip addr add fd99:1::1/64 dev eth1 nodad", "ip link set eth1 up"} {
		testpod.Run(t, line)
	}
	for _, line := range []string{"ip addr add 10.99.1.2/24 dev far", "ip addr add fd99:1::2/64 dev far nodad", "ip link set far up"} {
		p.Must(t, line)
	}
	return p
}

// line answers each line and each datagram with a name, at a port of all addresses.
func line(t *testing.T, name string, port int) (closeTCP func()) {
	t.Helper()
	address := fmt.Sprintf("[::]:%d", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); packets.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					if lines.Text() == breakOff {
						c.(*net.TCPConn).SetLinger(0)
						return
					}
					fmt.Fprintf(c, "%s sees %s\n", name, c.RemoteAddr())
				}
			}()
		}
	}()
	go func() {
		for b := make([]byte, 100); ; {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo([]byte(name+"\n"), from)
		}
	}()
	return func() { l.Close() }
}

// agent redirects the app's port to a Server, by the rules that steal says: by TCP
// and by UDP. tick is what an agent does each second, and end its end.
func agent(t *testing.T, steal *atomic.Bool, laptop string) (tick func(ports ...PortKey), end func()) {
	t.Helper()
	rules := []steer.Rule{
		{Name: "tcp", Owner: "ada", Protocol: steer.TCP, Port: appPort, Mode: steer.Steal},
		{Name: "udp", Owner: "ada", Protocol: steer.UDP, Port: appPort, Mode: steer.Steal},
	}
	set, err := steer.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return agentBy(t, Config{
		Rules: func(protocol steer.Protocol, port uint16) *steer.Port {
			if !steal.Load() {
				return nil
			}
			return set.Port(protocol, port)
		},
		Laptop: func(ctx context.Context, r *steer.Rule) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, string(r.Protocol), laptop)
		},
		Observer: func(PortKey) steer.Observer { return blind{} },
		Log:      slog.New(slog.DiscardHandler),
	})
}

// agentBy is an agent whose Server is as c says.
func agentBy(t *testing.T, c Config) (tick func(ports ...PortKey), end func()) {
	t.Helper()
	s := New(c)
	table, err := redirect.Open("test", agentGroup)
	if err != nil {
		t.Fatal(err)
	}
	end = func() {
		table.Close()
		s.Close()
	}
	t.Cleanup(end)
	return func(ports ...PortKey) {
		t.Helper()
		redirects, err := s.Set(ports)
		if err == nil {
			err = table.Set(redirects)
		}
		if err != nil {
			t.Error(err)
		}
	}, end
}

var bothPorts = []PortKey{{steer.TCP, appPort}, {steer.UDP, appPort}}

func TestPodIsSteered(t *testing.T) {
	inPod(t, podIsSteered)
}

// A pod whose rules take marks away has its connections translated.
func TestPodIsSteeredByTranslation(t *testing.T) {
	inPod(t, func(t *testing.T) {
		takeMarksAway(t)
		podIsSteered(t)
	})
}

// takeMarksAway has the pod's own rules do that.
func takeMarksAway(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft to have other rules in the pod")
	}
	testpod.Run(t, "nft add table inet firewall ; add chain inet firewall out { type filter hook output priority 0 ; } ; "+
		"add rule inet firewall out meta mark set 1")
}

func podIsSteered(t *testing.T) {
	far, near := host(t), start(t, 0)
	closeApp := line(t, "app", appPort)
	line(t, "laptop", 9000)
	var steal atomic.Bool
	tick, _ := agent(t, &steal, "127.0.0.1:9000")
	want := func(name string) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			for i, a := range []string{"127.0.0.1", "[::1]", "10.99.1.1", "[fd99:1::1]"} {
				a = fmt.Sprintf("%s %s:%d", network, a, appPort)
				if got := near.Say("who " + a); got != name {
					t.Errorf("%s from the pod: %s, want %s", a, got, name)
				}
				if i < 2 {
					continue // the host has a loopback of its own
				}
				if got := far.Say("who " + a); got != name {
					t.Errorf("%s from the host: %s, want %s", a, got, name)
				}
			}
		}
	}
	want("app")
	steal.Store(true)
	tick(bothPorts...)
	want("laptop")
	steal.Store(false)
	want("app") // by way of the agent
	tick()
	want("app")

	// What only connects, as a probe does, learns that there is no app.
	steal.Store(true)
	closeApp()
	tick(bothPorts...)
	if got := far.Say("who tcp 10.99.1.1:8080"); !strings.Contains(got, "refused") {
		t.Errorf("without an app: %s", got)
	}
}

// An app that listens in one family of IP is refused in the other, as without an agent:
// a client that tries both addresses of localhost goes on to the second one only then.
func TestOtherFamilyIsRefused(t *testing.T) {
	inPod(t, otherFamilyIsRefused)
}

func TestOtherFamilyIsRefusedByTranslation(t *testing.T) {
	inPod(t, func(t *testing.T) {
		takeMarksAway(t)
		otherFamilyIsRefused(t)
	})
}

func otherFamilyIsRefused(t *testing.T) {
	far, near := host(t), start(t, 0)
	line(t, "laptop", 9000)
	var steal atomic.Bool
	steal.Store(true)
	tick, _ := agent(t, &steal, "127.0.0.1:9000")
	four, six := []string{"127.0.0.1", "10.99.1.1"}, []string{"[::1]", "[fd99:1::1]"}
	const refused = "connect: connection refused"
	want := func(addrs []string, name string) {
		t.Helper()
		tick(bothPorts...)
		for i, a := range addrs {
			all := []testpod.Process{near, far}[:1+i] // the host has a loopback of its own
			for _, p := range all {
				if got := p.Say(fmt.Sprintf("who tcp %s:%d", a, appPort)); got != name && !(name == refused && strings.HasSuffix(got, refused)) {
					t.Errorf("%s: %s, want %s", a, got, name)
				}
			}
		}
	}
	for _, c := range []struct{ network, address, four, six string }{
		{"tcp4", "0.0.0.0", "laptop", refused}, {"tcp6", "[::]", refused, "laptop"},
		{"tcp", "[::]", "laptop", "laptop"}, {"tcp4", "0.0.0.0", "laptop", refused},
	} {
		app, err := net.Listen(c.network, fmt.Sprintf("%s:%d", c.address, appPort))
		if err != nil {
			t.Fatal(err)
		}
		want(four, c.four)
		want(six, c.six)
		app.Close()
	}
}

// Rules come and go, and no connection fails.
func TestRulesComeAndGoUnseen(t *testing.T) {
	inPod(t, func(t *testing.T) {
		far := host(t)
		line(t, "app", appPort)
		line(t, "laptop", 9000)
		var steal atomic.Bool
		tick, _ := agent(t, &steal, "127.0.0.1:9000")
		for _, network := range []string{"tcp", "udp"} {
			answers := make(chan string)
			go func() { answers <- far.Say("load 2s " + network + " 10.99.1.1:8080") }()
			changes, got := 0, ""
			for got == "" {
				steal.Store(changes%2 == 0)
				if network == "udp" || changes%3 > 0 { // an answer on its way may be lost when UDP is no longer redirected
					tick(bothPorts...)
				} else {
					tick()
				}
				changes++
				select {
				case got = <-answers:
				case <-time.After(20 * time.Millisecond):
				}
			}
			t.Logf("%s: %s, %d changes", network, got, changes)
			got = strings.TrimSuffix(strings.TrimPrefix(got, "map["), "]")
			for _, answer := range strings.Fields(got) {
				if !strings.HasPrefix(answer, "app:") && !strings.HasPrefix(answer, "laptop:") {
					t.Errorf("%s: %s", network, got)
					break
				}
			}
		}
	})
}

// An agent follows another one. Clients who come from the same port as before are
// its own, though the kernel remembers where it has sent them.
func TestAgentAfterAgent(t *testing.T) {
	inPod(t, func(t *testing.T) {
		far := host(t)
		line(t, "app", appPort)
		line(t, "laptop", 9000)
		var steal atomic.Bool
		for i := range 4 {
			tick, end := agent(t, &steal, "127.0.0.1:9000")
			tick(bothPorts...)
			want := "app"
			if steal.Store(i%2 == 1); steal.Load() {
				want = "laptop"
			}
			for _, network := range []string{"tcp", "udp"} {
				if got := far.Say("from 5555 " + network + " 10.99.1.1:8080"); got != want {
					t.Errorf("agent %d, %s: %s, want %s", i+1, network, got, want)
				}
			}
			tick()
			end()
		}
	})
}
