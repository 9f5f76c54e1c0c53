package redirect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"podnet.dev/internal/testpod"
)

const (
	agentGroup = 4242
	appPort    = 8080
	agentPort  = 15001
)

// both is what most stories redirect.
var both = []Port{{TCP, appPort, agentPort}, {UDP, appPort, agentPort}}

// TestMain lets the test binary be another process of the pod, another host, or
// an agent that will be killed.
func TestMain(m *testing.M) {
	if testpod.Obey(map[string]func([]string) string{
		"who": func(at []string) string { return who(at[0], at[1]) }, // NETWORK ADDRESS
		"own": func(at []string) string { // NETWORK ADDRESS, as the agent asks
			return whoBy(net.Dialer{Timeout: time.Second, Control: ControlDialer}, at[0], at[1])
		},
		"from": func(at []string) string { // PORT ADDRESS, by TCP; the other side ends it first
			local, err := net.ResolveTCPAddr("tcp", ":"+at[0])
			if err != nil {
				return err.Error()
			}
			return lastOf(net.Dialer{Timeout: time.Second, LocalAddr: local}, at[1])
		},
		"serve": func(at []string) string { return "serve " + answerAt(at, nil) },            // NAME PORT, by TCP
		"take":  func(at []string) string { return "take " + answerAt(at, ControlListener) }, // the same, of what is handed over
	}) {
		return
	}
	switch os.Getenv("PODNET_TEST_ROLE") {
	case "agent":
		killMe()
		return
	case "nobody":
		_, err := Open("test", agentGroup)
		var refused *PermissionError
		if errors.As(err, &refused) && refused.Hint() != "" {
			fmt.Print("refused: ")
		}
		fmt.Println(err)
		return
	}
	goleak.VerifyTestMain(m)
}

func answerAt(at []string, c control) string {
	l, err := listen(":"+at[1], c)
	if err == nil {
		go accept(context.Background(), l, at[0])
	}
	return fmt.Sprint(err)
}

// inPod runs the story in a network namespace of its own.
func inPod(t *testing.T, story func(*testing.T)) {
	t.Helper()
	testpod.Tell(t, 0, story)
}

func ip(t *testing.T, args string) {
	t.Helper()
	testpod.Run(t, "ip "+args)
}

// nft returns what nft says, or skips the test where it is not installed.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft to look at the ruleset")
	}
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The ways by which TCP comes to the agent. way is that of the story.
const (
	handedOver = "handed_over"
	translated = "translated"
)

func way(t *testing.T) string {
	if strings.HasSuffix(t.Name(), "/"+translated) {
		return translated
	}
	return handedOver
}

// bothWays tells a story in a pod whose kernel hands TCP over, and in one where
// addresses are translated.
func bothWays(t *testing.T, story func(*testing.T)) {
	t.Helper()
	for _, way := range []string{handedOver, translated} {
		t.Run(way, func(t *testing.T) { inPod(t, story) })
	}
}

// openBy makes a table that has TCP redirected in a way.
func openBy(way, id string) (*Table, error) {
	if way == translated {
		return open(id, agentGroup, errors.New("the story wants it"))
	}
	table, err := Open(id, agentGroup)
	if err != nil {
		return nil, err
	}
	return table, table.Translates()
}

func openTable(t *testing.T) *Table {
	t.Helper()
	table, err := openBy(way(t), "test")
	if errors.Is(err, unix.ENOENT) {
		t.Skipf("this kernel hands nothing over: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

func set(t *testing.T, table *Table, ports []Port) {
	t.Helper()
	if err := table.Set(ports); err != nil {
		t.Fatal(err)
	}
}

// keep calls Set as an agent does, until the test or the returned function
// ends it.
func keep(t *testing.T, table *Table, ports []Port) (stop func()) {
	t.Helper()
	set(t, table, ports)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-time.After(RefreshEvery):
			case <-quit:
				return
			}
			if err := table.Set(ports); err != nil {
				t.Error(err)
			}
		}
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			close(quit)
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

// serve answers everything on a port of all addresses, TCP and UDP, with name:
// each line, each datagram.
func serve(t *testing.T, name string, port int) {
	t.Helper()
	address := fmt.Sprintf("[::]:%d", port)
	var c control
	if name == "agent" {
		c = ControlListener
	}
	listener, err := listen(address, c)
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	t.Cleanup(func() { listener.Close(); packets.Close(); open.Wait() })
	open.Go(func() { accept(t.Context(), listener, name) })
	open.Go(func() {
		b := make([]byte, 64)
		for {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo([]byte(name+"\n"), from)
		}
	})
}

// accept answers all connections of a listener until it is closed, and those
// that are left until ctx ends.
func accept(ctx context.Context, l net.Listener, name string) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		open.Go(func() { answer(ctx, c, name) })
	}
}

func answer(ctx context.Context, c net.Conn, name string) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if _, err := fmt.Fprintln(c, name); err != nil || lines.Text() == goodbye {
			return
		}
	}
}

// goodbye has whoever answers end the connection.
const goodbye = "goodbye"

// ask says something over c and returns the answer, or why there is none.
func ask(c net.Conn) string {
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err.Error()
	}
	if _, err := fmt.Fprintln(c, "who is there?"); err != nil {
		return err.Error()
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(line, "\n")
}

// who answers a new connection.
func who(network, address string) string {
	return whoBy(net.Dialer{Timeout: time.Second}, network, address)
}

func whoBy(d net.Dialer, network, address string) string {
	c, err := d.Dial(network, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return ask(c)
}

// lastOf returns all that is said on a new connection until the other side ends it.
func lastOf(d net.Dialer, address string) string {
	c, err := d.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err.Error()
	}
	fmt.Fprintln(c, goodbye)
	said, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(said))
}

// dial opens a connection that stays for the test.
func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// host is another host, on a cable to the pod of which N is the number: the pod
// is 10.99.N.1 and fd99:N::1, the host is 2, and the pod its default route.
func host(t *testing.T, n int) testpod.Process {
	t.Helper()
	p := testpod.Start(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET})
	ip(t, fmt.Sprintf("link add eth%d type veth peer name far netns %d", n, p.PID))
	ip(t, fmt.Sprintf("addr add 10.99.%d.1/24 dev eth%d", n, n))
	ip(t, fmt.Sprintf("addr add fd99:%d::1/64 dev eth%d nodad", n, n))
	ip(t, fmt.Sprintf("link set eth%d up", n))
	for _, line := range []string{
		fmt.Sprintf("ip addr add 10.99.%d.2/24 dev far", n), fmt.Sprintf("ip addr add fd99:%d::2/64 dev far nodad", n), "ip link set far up",
		fmt.Sprintf("ip route add default via 10.99.%d.1", n), fmt.Sprintf("ip route add default via fd99:%d::1", n),
	} {
		p.Must(t, line)
	}
	return p
}

// until waits for a condition and returns how long it took.
func until(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}
