package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper/remote"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/testhost"
)

// role makes the test binary one of the programs of these stories.
const role = "PODNET_TEST_ROLE"

const (
	socket   = "/run/podnet/helper.sock"
	operator = 21001
	another  = 21002 // operator
	stranger = 65534
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "helper":
		err = run(ctx, os.Args[1:])
	case "user":
		err = connect(os.Args[1])
	case "wish":
		err = wish(os.Args[1:])
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// become gives root up for good.
func become(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

var own = netip.MustParseAddr("198.18.0.5")

// connect is an ordinary user's podnet, as far as the host is concerned. It ends
// with standard input, or with the helper.
func connect(uid string) error {
	if err := become(uid); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := remote.Open(ctx, socket, func(string) {})
	if err != nil {
		return err
	}
	dev, err := s.TUN(1420)
	if err != nil {
		return err
	}
	name, err := dev.Name()
	if err != nil {
		return err
	}
	err = s.SetNetwork(router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}, Routes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, MTU: 1400})
	if err != nil {
		return err
	}
	if mtu, err := dev.MTU(); err != nil || mtu != 1400 {
		return fmt.Errorf("MTU %d, %w", mtu, err)
	}
	if _, _, err := s.ListenDNS(ctx, []netip.Addr{own, own}); err == nil {
		return errors.New("port 53 twice on one address")
	}
	packets, streams, err := s.ListenDNS(ctx, []netip.Addr{own})
	if err != nil {
		return err
	}
	wish := osdns.Config{Link: name, Servers: []netip.Addr{own}, MatchDomains: []string{"cluster.local", "svc", "com"}, SearchDomains: []string{"shop.svc.cluster.local"}}
	if err := s.SetDNS(ctx, wish); err != nil {
		return err
	}
	if base, mode := s.DNS(); len(base) != 1 || base[0] != netip.MustParseAddrPort("192.0.2.53:53") || mode != osdns.ModeDirect {
		return fmt.Errorf("the resolvers are %v by %s", base, mode)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		carry(dev)
	}()
	fmt.Println("connected", name)
	asked := make(chan struct{})
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); close(asked) }()
	select {
	case <-over:
		fmt.Println("over")
		return nil
	case <-asked:
	}
	err = s.SetDNS(ctx, osdns.Config{})
	for i := range packets {
		err = errors.Join(err, packets[i].Close(), streams[i].Close())
	}
	err = errors.Join(err, dev.Close(), s.Close())
	<-over
	fmt.Println("disconnected")
	return err
}

// carry reads what the host sends until the device ends, and tells of the first
// packet to 10.96.0.10.
func carry(dev tun.Device) {
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for told := false; ; {
		n, err := dev.Read(bufs, sizes, 16)
		if err != nil {
			return
		}
		for i := range n {
			p := bufs[i][16 : 16+sizes[i]]
			if len(p) > 20 && p[0]>>4 == 4 && netip.AddrFrom4([4]byte(p[16:20])) == netip.MustParseAddr("10.96.0.10") && !told {
				fmt.Println("packet")
				told = true
			}
		}
	}
}

// wish is a user who asks for too much, one thing after another.
func wish(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	s, err := remote.Open(context.Background(), socket, func(string) {})
	if err != nil {
		g, _, look := remote.Look(context.Background(), socket)
		fmt.Println("operator", g.Operator, look)
		return err
	}
	defer s.Close()
	dev, err := s.TUN(1420)
	if err != nil {
		return err
	}
	defer dev.Close()
	name, err := dev.Name()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		kind, text, _ := strings.Cut(in.Text(), " ")
		want := router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}}
		switch kind {
		case "route":
			want.Routes = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "shared":
			want.Shared = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "routes":
			for i := range 1025 {
				want.Routes = append(want.Routes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
			}
			err = s.SetNetwork(want)
		case "address":
			want.Addresses = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "domain":
			err = s.SetDNS(context.Background(), osdns.Config{Link: name, Servers: []netip.Addr{own}, MatchDomains: []string{text}})
		case "port":
			_, _, err = s.ListenDNS(context.Background(), []netip.Addr{netip.MustParseAddr(text)})
		case "reset":
			var n int
			if n, err = s.ResetFlows(context.Background(), []netip.Addr{netip.MustParseAddr(text)}); err == nil {
				fmt.Println("ended", n)
				continue
			}
		case "close": // and the device is kept
			err = s.Close()
		}
		fmt.Println(err)
	}
	return nil
}

// laptop is a host with a network of its own.
type laptop struct {
	*testhost.Host
	t      *testing.T
	config string
}

func newLaptop(t *testing.T) *laptop {
	t.Helper()
	h := &laptop{testhost.New(t), t, filepath.Join(t.TempDir(), "helper.yaml")}
	if err := os.WriteFile(h.config, []byte(fmt.Sprintf("apiVersion: podnet/v1\nkind: Helper\noperators:\n  users: [\"%d\", \"%d\"]\n", operator, another)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link add eth0 type veth peer name far", "link set eth0 addrgenmode none", "link set far addrgenmode none", "addr add 192.168.7.2/24 dev eth0", "link set far up", "link set eth0 up"} {
		if out, err := h.Command(append([]string{"ip"}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", args, err, out)
		}
	}
	eventually(t, "eth0 is up", func() bool { return strings.Contains(h.Snapshot(), "192.168.7.0/24 dev eth0") })
	return h
}

// program is one that runs on the laptop.
type program struct {
	*exec.Cmd
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
}

// start runs the test binary on the laptop in a role.
func (h *laptop) start(as string, args ...string) *program {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	p := &program{Cmd: h.Command(append([]string{exe}, args...)...), t: h.t}
	p.Env = append(os.Environ(), role+"="+as)
	out, err := p.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if p.in, err = p.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	if testing.Verbose() {
		p.Stderr = os.Stderr
	}
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	h.t.Cleanup(p.kill)
	return p
}

// helper starts podnet-helper, and returns when it answers.
func (h *laptop) helper() *program {
	h.t.Helper()
	p := h.start("helper", "serve", "-socket", socket, "-config", h.config, "-state", h.State)
	eventually(h.t, "podnet-helper answers", func() bool { return h.look() == nil })
	return p
}

// look asks the helper who it is.
func (h *laptop) look() error {
	return h.Command("sh", "-c", "grep -q "+socket+" /proc/net/unix && test -S "+socket).Run()
}

// says reads a line.
func (p *program) says(want string) {
	p.t.Helper()
	if !p.lines.Scan() || p.lines.Text() != want {
		p.t.Fatalf("it says %q, want %q", p.lines.Text(), want)
	}
}

// kill ends it at once; twice does no harm.
func (p *program) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// TestAnOrdinaryUserConnects: without a capability, and what he sends comes out of
// the device that he was given.
func TestAnOrdinaryUserConnects(t *testing.T) {
	h := newLaptop(t)
	helper := h.helper()
	before := h.Snapshot()
	u := h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	during := h.Snapshot()
	for _, want := range []string{"10.96.0.0/16 dev podnet0", "nameserver 198.18.0.5", "shop.svc.cluster.local"} {
		if !strings.Contains(during, want) {
			t.Errorf("no %q in\n%s", want, during)
		}
	}
	if out, err := h.Command("bash", "-c", "echo hello > /dev/udp/10.96.0.10/9").CombinedOutput(); err != nil {
		t.Fatalf("send: %v: %s", err, out)
	}
	u.says("packet")
	_ = u.in.Close()
	u.says("disconnected")
	if err := u.Wait(); err != nil {
		t.Error(err)
	}
	h.Becomes(before, 0)

	u = h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	if err := helper.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := helper.Wait(); err != nil {
		t.Error(err)
	}
	u.says("over")
	h.Becomes(before, 0)
}

// TestStrangersMayLook and do nothing else.
func TestStrangersMayLook(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	before := h.Snapshot()
	w := h.start("wish", strconv.Itoa(stranger))
	w.says("operator false <nil>")
	w.says("failed: podnet may not change this machine's network: this user is no operator of podnet-helper")
	if err := w.Wait(); err == nil {
		t.Error("it succeeded")
	}
	h.Becomes(before, 0)
}

// TestOneUserAtATime: an operator may have several sessions, and while he has one
// another operator has none.
func TestOneUserAtATime(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	before := h.Snapshot()
	u := h.start("user", strconv.Itoa(operator))
	u.says("connected podnet0")
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	o := h.start("wish", strconv.Itoa(another))
	o.says("operator true <nil>")
	o.says(fmt.Sprintf("failed: another user (%d) has this machine's network by podnet-helper", operator))
	fmt.Fprintln(w.in, "route 10.97.0.0/16")
	w.says("<nil>")
	if got := h.Snapshot(); !strings.Contains(got, "10.97.0.0/16 dev podnet1") {
		t.Errorf("no second session's route in\n%s", got)
	}
	u.kill()
	eventually(t, "the first session is taken back", func() bool { return !strings.Contains(h.Snapshot(), "podnet0") })

	// The interface ends with the session, whoever still has its file.
	fmt.Fprintln(w.in, "close")
	w.says("<nil>")
	h.Becomes(before, 0)
	again := h.start("wish", strconv.Itoa(another))
	again.says("ready")
}

// TestFlowsEndByTheHelper: a program that waits for an answer from the tunnel gets an
// error, and nobody else does, whatever an operator asks for.
func TestFlowsEndByTheHelper(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	fmt.Fprintln(w.in, "route 10.96.0.0/16")
	w.says("<nil>")
	waits := h.Command("bash", "-c", "exec 3<>/dev/tcp/10.96.0.10/80")
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = waits.Process.Kill(); _ = waits.Wait() })
	eventually(t, "the program waits", func() bool {
		out, _ := h.Command("ss", "-Htn", "src", own.String()).Output()
		return strings.Contains(string(out), "10.96.0.10:80")
	})
	fmt.Fprintln(w.in, "reset 192.168.7.2")
	if !w.lines.Scan() || !strings.Contains(w.lines.Text(), "not this session's") {
		t.Errorf("flows of the laptop's own network: %q", w.lines.Text())
	}
	fmt.Fprintln(w.in, "reset "+own.String())
	if !w.lines.Scan() || strings.Contains(w.lines.Text(), "INET_DIAG_DESTROY") {
		t.Skip(w.lines.Text())
	}
	if w.lines.Text() != "ended 1" {
		t.Errorf("%q, want one flow", w.lines.Text())
	}
	var exit *exec.ExitError
	if err := waits.Wait(); !errors.As(err, &exit) || exit.ExitCode() <= 0 {
		t.Errorf("the program that waited ended with %v", err)
	}
}

// TestSocketFromSystemd: the socket is somebody else's making, as the units have it.
func TestSocketFromSystemd(t *testing.T) {
	h := newLaptop(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", exe, "serve", "-config", h.config, "-state", h.State)
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), role+"=helper"), []*os.File{passed}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	g, sessions, err := remote.Look(t.Context(), l.Addr().String())
	if err != nil || !g.Operator || len(sessions) > 0 {
		t.Errorf("it says %+v, %v, %v", g, sessions, err)
	}
}

// TestBadWishesChangeNothing has an operator ask for what nobody gets.
func TestBadWishesChangeNothing(t *testing.T) {
	h := newLaptop(t)
	h.helper()
	w := h.start("wish", strconv.Itoa(operator))
	w.says("ready")
	before := h.Snapshot()
	for _, c := range []struct{ wish, says string }{
		{"route 0.0.0.0/0", "broader than /8"}, {"route 10.0.0.0/7", "broader than /8"}, {"route ::/0", "broader than /32"}, {"route fd00::/31", "broader than /32"},
		{"route 127.0.0.0/8", "loopback"}, {"route ::1/128", "loopback"}, {"route 169.254.0.0/16", "link-local"}, {"route fe80::/64", "link-local"},
		{"route 224.0.0.0/8", "multicast"}, {"route 192.168.7.0/24", "collides"}, {"route 192.168.7.1/32", "collides"}, {"route 192.168.0.0/16", "collides"},
		{"shared 192.168.7.0/24", "collides"}, {"shared 0.0.0.0/0", "broader"}, {"routes", "too many"},
		{"address 192.168.7.1/32", "collides"}, {"address 127.0.0.1/32", "127.0.0.1"}, {"address 10.0.0.0/8", "network around it"},
		{"domain in-addr.arpa", "not a cluster's"}, {"domain .", "a label has"}, {"port 192.168.7.2", "not this session's"},
	} {
		fmt.Fprintln(w.in, c.wish)
		if !w.lines.Scan() || !strings.Contains(w.lines.Text(), c.says) {
			t.Errorf("%s: %q, want %q", c.wish, w.lines.Text(), c.says)
		}
		if got := h.Snapshot(); got != before {
			t.Fatalf("%s: the host is\n%s\nand was\n%s", c.wish, got, before)
		}
	}
}

// TestKilledAtRandom kills the helper with -9, or the user's podnet, or both, while
// nothing goes on, while the user connects, is connected, or disconnects.
func TestKilledAtRandom(t *testing.T) {
	h := newLaptop(t)
	rounds := 12
	if os.Getenv("PODNET_E2E_LONG") != "" {
		rounds = 200
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PODNET_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the same again: PODNET_E2E_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h.helper().kill() // whose folders stay
	before := h.Snapshot()
	for round := range rounds {
		helper := h.helper()
		at := time.Duration(random.Int64N(int64(80 * time.Millisecond)))
		var u *program
		when := [...]string{"idle", "connecting", "connected", "disconnecting"}[round%4]
		switch when {
		case "connecting":
			u = h.start("user", strconv.Itoa(operator))
		case "connected", "disconnecting":
			u = h.start("user", strconv.Itoa(operator))
			u.says("connected podnet0")
			if when == "disconnecting" {
				_ = u.in.Close()
			}
		}
		time.Sleep(at)
		whom := "the helper"
		if u != nil {
			whom = [...]string{"the helper", "the user's", "the helper, the user's", "the user's, the helper"}[random.IntN(4)]
		}
		t.Logf("%s, after %v: %s", when, at.Round(time.Millisecond), whom)
		for _, name := range strings.Split(whom, ", ") {
			if name == "the helper" {
				helper.kill()
			} else {
				u.kill()
			}
		}
		if whom == "the user's" {
			h.Becomes(before, 2*time.Second)
			helper.kill()
		}
		if u != nil && when != "connecting" && whom == "the helper" {
			eventually(t, "the user's podnet has heard", func() bool { return !u.lines.Scan() })
		}
		if u != nil && when == "connecting" {
			u.kill() // it may be waiting for the word to disconnect
		}
		h.Becomes(before, 2*time.Second)
	}
}
