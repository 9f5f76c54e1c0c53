package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/gateway/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/testpod"
	"podnet.dev/internal/tunnel"
)

const (
	agentGroup = 4242
	appPort    = 8080
	relayPort  = 20000
	podUID     = "2f3c"
)

// TestMain lets the test binary be the agent.
func TestMain(m *testing.M) {
	if os.Getenv("PODNET_TEST_ROLE") == "agent" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		status := Main(ctx, os.Args[1:])
		stop()
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// inPod runs the story in a network namespace of its own, as root: the agent has a
// group of its own.
func inPod(t *testing.T, story func(*testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the agent has a group of its own")
	}
	testpod.Tell(t, 0, story)
}

// fakeGateway is a gateway and, behind it, the laptops that are with it: a tunnel
// and a stack that has the addresses of all of them.
type fakeGateway struct {
	t      *testing.T
	key    key.Public
	stack  *netstack.Stack
	tunnel *tunnel.Tunnel
	server *steering.Server
}

func newGateway(t *testing.T, all func() []control.Gateway) *fakeGateway {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	g := &fakeGateway{t: t, key: private.Public()}
	if g.stack, err = netstack.New(netstack.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := g.stack.AddAddress(g.key.Address6()); err != nil {
		t.Fatal(err)
	}
	if g.tunnel, err = tunnel.New(g.stack.Device(), conn.NewStdNetBind(), tunnel.Config{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	l, err := g.stack.ListenTCP(netip.AddrPortFrom(g.key.Address6(), control.Port))
	if err != nil {
		t.Fatal(err)
	}
	g.server = steering.NewServer(slog.New(slog.NewTextHandler(t.Output(), nil)), all)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, g.tunnel.Close(), g.stack.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *fakeGateway) entry() control.Gateway {
	return control.Gateway{PublicKey: g.key, Endpoints: []netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), g.tunnel.ListenPort()),
	}}
}

// admit makes the agent of a key a peer of the tunnel, and tells it rules.
func (g *fakeGateway) admit(agent key.Public, here bool, rules ...control.Rule) {
	g.t.Helper()
	if err := g.tunnel.SetPeers([]tunnel.Peer{{PublicKey: agent, AllowedIPs: []netip.Prefix{netip.PrefixFrom(agent.Address6(), 128)}}}); err != nil {
		g.t.Fatal(err)
	}
	g.server.SetAgents([]steering.Agent{{Key: agent, PodUID: podUID, Namespace: "shop", Pod: "web", Chosen: true, Rules: rules}},
		func(netip.Addr) bool { return here })
}

// fakeLaptop answers requests with its name and notes what agents tell it.
type fakeLaptop struct {
	t    *testing.T
	addr netip.Addr

	mu     sync.Mutex
	mute   bool
	rules  []string
	events []control.Event
	counts map[string]control.Counts
	lives  int // connections of agents there have been
}

// newLaptop puts a laptop behind gateways.
func newLaptop(t *testing.T, name string, gateways ...*fakeGateway) *fakeLaptop {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	l := &fakeLaptop{t: t, addr: private.Public().RelayAddress6(), counts: map[string]control.Counts{}}
	for _, g := range gateways {
		l.serve(name, g)
	}
	return l
}

// serve has the laptop answer behind a gateway.
func (l *fakeLaptop) serve(name string, g *fakeGateway) {
	t := l.t
	t.Helper()
	if err := g.stack.AddAddress(l.addr); err != nil {
		t.Fatal(err)
	}
	live, err := g.stack.ListenTCP(netip.AddrPortFrom(l.addr, control.LivePort))
	if err != nil {
		t.Fatal(err)
	}
	relay, err := g.stack.ListenTCP(netip.AddrPortFrom(l.addr, relayPort))
	if err != nil {
		t.Fatal(err)
	}
	packets, err := g.stack.ListenUDP(netip.AddrPortFrom(l.addr, relayPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer(name)}
	var running sync.WaitGroup
	running.Go(func() { l.acceptLive(live, &running) })
	running.Go(func() { _ = server.Serve(relay) })
	running.Go(func() { echo(packets, name) })
	t.Cleanup(func() {
		_ = errors.Join(live.Close(), server.Close(), packets.Close())
		l.silence(true)
		running.Wait()
	})
}

func (l *fakeLaptop) acceptLive(live net.Listener, running *sync.WaitGroup) {
	for {
		c, err := live.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.lives++
		l.mu.Unlock()
		running.Go(func() { l.beat(c) })
		running.Go(func() { l.hear(c) })
	}
}

// beat says that the laptop is there, unless it is mute.
func (l *fakeLaptop) beat(c net.Conn) {
	line := control.ToPod{Podnet: control.Version}
	for {
		l.mu.Lock()
		mute := l.mute
		l.mu.Unlock()
		if mute {
			return
		}
		if err := control.Write(c, line); err != nil {
			return
		}
		line = control.ToPod{}
		time.Sleep(control.Beat)
	}
}

func (l *fakeLaptop) hear(c net.Conn) {
	defer c.Close()
	for r := control.NewReader(c); ; {
		var line control.FromPod
		if err := c.SetReadDeadline(time.Now().Add(control.Silence)); err != nil {
			return
		}
		if err := r.Read(&line); err != nil {
			return
		}
		l.mu.Lock()
		if line.Rules != nil {
			l.rules = *line.Rules
		}
		if line.Event != nil {
			l.events = append(l.events, *line.Event)
		}
		for name, n := range line.Counts {
			l.counts[name] = n
		}
		l.mu.Unlock()
	}
}

// silence makes the laptop say nothing any more, or speak again on the next
// connection.
func (l *fakeLaptop) silence(mute bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = mute
}

func (l *fakeLaptop) told() (rules []string, events []control.Event, counts map[string]control.Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts = map[string]control.Counts{}
	for name, n := range l.counts {
		counts[name] = n
	}
	return l.rules, append([]control.Event(nil), l.events...), counts
}

func (l *fakeLaptop) rule(name string, matches ...steer.Match) control.Rule {
	return control.Rule{Laptop: l.addr, RelayPort: relayPort, Rule: steer.Rule{
		Name: name, Owner: name, Since: time.Unix(1, 0).UTC(), Protocol: steer.TCP, Port: appPort, Mode: steer.Steal, Matches: matches,
	}}
}

// header matches requests of a user.
func header(user string) steer.Match {
	return steer.Match{Headers: []steer.Condition{{Name: "x-user", Value: user}}}
}

// answer gives its name, or at /echo what it got.
func answer(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/echo" {
			fmt.Fprint(w, name)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(b)
	})
}

// echo answers each datagram with a name, or with itself if it begins with echo.
func echo(c net.PacketConn, name string) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if bytes.HasPrefix(b[:n], []byte("echo")) {
			_, _ = c.WriteTo(b[:n], from)
			continue
		}
		_, _ = c.WriteTo([]byte(name), from)
	}
}

// newApp is the pod's own program.
func newApp(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", appPort))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", appPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer("app")}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	running.Go(func() { echo(c, "app") })
	t.Cleanup(func() {
		_ = errors.Join(server.Close(), c.Close())
		running.Wait()
	})
}

// get asks who answers a user's request, on a connection of its own.
func get(user string) string { return getAt(appPort, user) }

func getAt(port uint16, user string) string {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("x-user", user)
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// ask asks who answers a datagram.
func ask() string {
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", appPort))
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("who?")); err != nil {
		return err.Error()
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// process is an agent that runs, or has.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	hello control.Hello
	log   logged
	ended chan struct{}
}

// logged is what an agent has logged so far.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start puts an agent into the pod.
func start(t *testing.T, attributes *syscall.SysProcAttr, gateways ...*fakeGateway) *process {
	t.Helper()
	return startWith(t, attributes, nil, gateways...)
}

func startWith(t *testing.T, attributes *syscall.SysProcAttr, args []string, gateways ...*fakeGateway) *process {
	t.Helper()
	args = append(args, "--pod-uid", podUID)
	for _, g := range gateways {
		args = append(args, "--gateway", fmt.Sprintf("%s@%s", g.key, g.entry().Endpoints[0]))
	}
	p := &process{t: t, cmd: exec.Command("/proc/self/exe", args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=agent", "GORACE=atexit_sleep_ms=0")
	p.cmd.SysProcAttr = attributes
	p.cmd.Stderr = io.MultiWriter(t.Output(), &p.log)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if err := control.NewReader(lines).Read(&p.hello); err != nil {
		t.Errorf("no Hello: %v", err)
	}
	go func() {
		defer close(p.ended)
		_, _ = io.Copy(io.Discard, out)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// worker is the process id of the agent's worker.
func (p *process) worker() int {
	p.t.Helper()
	id := p.cmd.Process.Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", id, id))
	if err != nil {
		p.t.Skipf("this kernel does not list a process's children (CONFIG_PROC_CHILDREN): %v", err)
	}
	for _, task := range tasks(p.t, id) {
		if b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", id, task)); len(b) > 0 {
			break
		}
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		p.t.Fatalf("the worker among %q: %v", b, err)
	}
	return child
}

func tasks(t *testing.T, id int) (names []string) {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", id))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// ruleset is what nft lists in the pod.
func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Skipf("needs nft: %v: %s", err, out)
	}
	return string(out)
}

// until waits for a condition and returns how long it took.
func until(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// ends waits for the end of the agent.
func (p *process) ends(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("the agent has not ended within %v", limit)
	}
	return p.cmd.ProcessState.ExitCode()
}
