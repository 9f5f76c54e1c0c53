package osdns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// resolvedRoot finds the package systemd-resolved: installed, or unpacked
// with `dpkg -x` into a folder. It need not be installed, and on many machines
// must not be, since installing it takes over /etc/resolv.conf.
func resolvedRoot() (root string, ok bool) {
	cache, _ := os.UserCacheDir()
	for _, root := range []string{os.Getenv("PODNET_SYSTEMD_RESOLVED"), filepath.Join(cache, "podnet-lab/systemd-resolved"), "/"} {
		if root == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "lib/systemd/systemd-resolved")); err == nil {
			return root, true
		}
	}
	return "", false
}

// TestResolved runs in a network and a mount namespace of its own, with its
// own system bus, the real systemd-resolved, and two DNS servers that count:
// "public" behind eth0, and our own proxy on podnet0.
func TestResolved(t *testing.T) {
	const inside = "PODNET_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		root, ok := resolvedRoot()
		switch {
		case os.Geteuid() != 0:
			t.Skip("needs root for namespaces")
		case !ok:
			t.Skip("systemd-resolved is not here; see resolvedRoot")
		}
		if _, err := exec.LookPath("dbus-daemon"); err != nil {
			t.Skip("dbus-daemon is not here")
		}
		cmd := exec.Command("unshare", "--net", "--mount", os.Args[0], "-test.run", "^TestResolved$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"="+root)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	testResolved(t, newResolvedHost(t, os.Getenv(inside)))
}

// resolvedHost is the machine inside the namespaces.
type resolvedHost struct {
	t       *testing.T
	root    string
	dir     string
	opts    Options
	daemon  *exec.Cmd
	public  *logServer
	cluster *logServer
	split   *dnsproxy.Split
}

// run runs a command that has to work.
func (h *resolvedHost) run(name string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (h *resolvedHost) resolvectl(args ...string) string {
	h.t.Helper()
	return h.run(filepath.Join(h.root, "usr/bin/resolvectl"), args...)
}

func newResolvedHost(t *testing.T, root string) *resolvedHost {
	h := &resolvedHost{t: t, root: root, dir: t.TempDir()}
	h.run("mount", "-t", "tmpfs", "tmpfs", "/run")
	h.run("mkdir", "-p", "/run/systemd")
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(passwd), "systemd-resolve:") {
		file := filepath.Join(h.dir, "passwd")
		h.write(file, string(passwd)+"systemd-resolve:x:61999:65534::/:/usr/sbin/nologin\n")
		h.run("mount", "--bind", file, "/etc/passwd")
	}
	// The stub's address, which resolved knows to be its own.
	stub := filepath.Join(h.dir, "resolv.conf")
	h.write(stub, "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
	h.run("mount", "--bind", stub, "/etc/resolv.conf")
	for _, args := range []string{
		"link set lo up",
		"link add eth0 type veth peer name eth0-far", "link set eth0-far up", "link set eth0 up",
		"addr add 192.0.2.2/24 dev eth0", "addr add 192.0.2.53/32 dev lo",
		"link add podnet0 type veth peer name podnet0-far", "link set podnet0-far up", "link set podnet0 up",
		"addr add 198.18.0.9/32 dev podnet0",
		"link add podnet1 type veth peer name podnet1-far", "link set podnet1-far up", "link set podnet1 up",
		"route add default via 192.0.2.1",
	} {
		h.run("ip", strings.Fields(args)...)
	}

	bus := "unix:path=/run/bus" // in our own /run, where resolved's user may go
	conf := filepath.Join(h.dir, "bus.conf")
	h.write(conf, `<busconfig><type>system</type><listen>`+bus+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus)
	h.start("dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile")
	h.until("bus", func() bool { _, err := os.Stat("/run/bus"); return err == nil })
	h.startResolved()

	h.opts = Options{
		JournalDir: filepath.Join(h.dir, "journal"), BusAddress: bus,
		ResolvConf: stub, NSSwitch: filepath.Join(h.dir, "nsswitch.conf"),
	}
	h.serve()
	return h
}

func (h *resolvedHost) write(path, content string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *resolvedHost) start(name string, args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func (h *resolvedHost) startResolved() {
	h.t.Helper()
	h.daemon = h.start(filepath.Join(h.root, "lib/systemd/systemd-resolved"))
	h.until("resolved", func() bool {
		return exec.Command(filepath.Join(h.root, "usr/bin/resolvectl"), "status").Run() == nil
	})
	h.resolvectl("dns", "eth0", "192.0.2.53")
	h.resolvectl("default-route", "eth0", "yes")
}

func (h *resolvedHost) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.t.Fatalf("%s: not within 10 s", what)
}

// logServer answers from a table and remembers who was asked for.
type logServer struct {
	records map[string]string // name to address
	mu      sync.Mutex
	asked   []string
}

func (s *logServer) reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	name := dnsproxy.Canonical(q.Question[0].Name)
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSuffix(name, ".")+" "+dns.TypeToString[q.Question[0].Qtype])
	s.mu.Unlock()
	addr, ok := s.records[name]
	switch {
	case !ok:
		m.Rcode = dns.RcodeNameError
	case q.Question[0].Qtype == dns.TypeA:
		rr, _ := dns.NewRR(name + " 5 IN A " + addr)
		m.Answer = []dns.RR{rr}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{dnsproxy.SOA("cluster.local.", "cluster.local.", 1, 5)}
	}
	return m
}

func (s *logServer) ServeDNS(_ context.Context, r *dnsproxy.Request) *dns.Msg { return s.reply(r.Msg) }

func (s *logServer) Exchange(_ context.Context, q *dns.Msg) (*dns.Msg, error) { return s.reply(q), nil }

// take gives what was asked since the last take, sorted.
func (s *logServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.asked
	s.asked = nil
	slices.Sort(out)
	return out
}

func (h *resolvedHost) serve() {
	h.public = &logServer{records: map[string]string{"example.com.": "203.0.113.80", "web.dev.": "203.0.113.81"}}
	h.cluster = &logServer{records: map[string]string{"web.shop.svc.cluster.local.": "10.96.0.20", "api.dev.svc.cluster.local.": "10.96.0.30"}}
	h.split = dnsproxy.NewSplit(dnsproxy.SplitConfig{
		Namespace: "shop", Namespaces: []string{"shop", "dev", "cart"}, Cluster: h.cluster,
		Base: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for addr, handler := range map[string]dnsproxy.Handler{"192.0.2.53:53": h.public, "198.18.0.9:53": h.split} {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			h.t.Fatal(err)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			h.t.Fatal(err)
		}
		wg.Go(func() {
			dnsproxy.NewServer(handler, dnsproxy.Options{}).Serve(ctx, []net.PacketConn{pc}, []net.Listener{ln})
		})
	}
	h.t.Cleanup(func() { cancel(); wg.Wait(); h.split.Close() })
}

// stub asks 127.0.0.53 as the C library's nss-dns or Go would, for one name as
// it is.
func (h *resolvedHost) stub(name string) string {
	h.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := dns.Client{Timeout: 5 * time.Second}
	m, _, err := c.Exchange(q, "127.0.0.53:53")
	if err != nil {
		h.t.Fatalf("ask for %s: %v", name, err)
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String()
		}
	}
	return dns.RcodeToString[m.Rcode]
}

// native asks resolved as nss-resolve does, with its search domains.
func (h *resolvedHost) native(name string) string {
	out, err := exec.Command(filepath.Join(h.root, "usr/bin/resolvectl"), "query", "-4", "--legend=no", name).CombinedOutput()
	if err != nil {
		return "error"
	}
	f := strings.Fields(string(out))
	return f[1]
}

func testResolved(t *testing.T, h *resolvedHost) {
	ctx := context.Background()
	match, search := Domains("cluster.local", []string{"shop", "dev", "cart"}, "shop", []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	want := Config{Link: "podnet0", Servers: []netip.Addr{netip.MustParseAddr("198.18.0.9")}, MatchDomains: match, SearchDomains: search}

	status := func() string { return h.resolvectl("status", "eth0", "podnet0") }
	before := status()
	m, err := New(ctx, h.opts)
	if err != nil {
		t.Fatal(err)
	}
	if m.Mode() != ModeResolved {
		t.Fatalf("mode %s", m.Mode())
	}
	base := func() string { return fmt.Sprint(m.Base()) }
	if base() != "[192.0.2.53:53]" {
		t.Errorf("base before: %s", base())
	}
	begin := time.Now()
	if err := m.Set(ctx, []Config{want}); err != nil {
		t.Fatal(err)
	}
	t.Logf("set took %v", time.Since(begin))
	if base() != "[192.0.2.53:53]" {
		t.Errorf("base: %s", base())
	}
	wired := func() string {
		return h.resolvectl("dns", "podnet0") + h.resolvectl("domain", "podnet0") + h.resolvectl("default-route", "podnet0") +
			h.resolvectl("llmnr", "podnet0") + h.resolvectl("mdns", "podnet0") + h.resolvectl("dnssec", "podnet0") + h.resolvectl("dnsovertls", "podnet0")
	}
	state := wired()
	flat := strings.Join(strings.Fields(state), " ")
	for _, part := range []string{": 198.18.0.9", "shop.svc.cluster.local svc.cluster.local cluster.local ~svc ~cart ~dev ~shop ~96.10.in-addr.arpa", "podnet0): no"} {
		if !strings.Contains(flat, part) {
			t.Errorf("no %q in:\n%s", part, state)
		}
	}

	// Every form, by both kinds of client: one question to the cluster, none
	// to the public server, and the other way round.
	for _, tt := range []struct {
		name, want      string
		cluster, public []string
	}{
		{"web.shop.svc.cluster.local", "10.96.0.20", []string{"web.shop.svc.cluster.local A"}, nil},
		{"web.shop", "10.96.0.20", []string{"web.shop.svc.cluster.local A"}, nil},
		{"web.shop.svc", "10.96.0.20", []string{"web.shop.svc.cluster.local A"}, nil},
		{"web", "10.96.0.20", []string{"web.shop.svc.cluster.local A"}, nil},
		{"api.dev", "10.96.0.30", []string{"api.dev.svc.cluster.local A"}, nil},
		{"web.dev", "203.0.113.81", []string{"web.dev.svc.cluster.local A"}, []string{"web.dev A"}},
		{"example.com", "203.0.113.80", nil, []string{"example.com A"}},
	} {
		for client, ask := range map[string]func(string) string{"stub": h.stub, "native": h.native} {
			if client == "stub" && tt.name == "web" {
				continue // a stub's own search list makes this a full name
			}
			h.resolvectl("flush-caches")
			h.split.Flush()
			h.cluster.take()
			h.public.take()
			if got := ask(tt.name); got != tt.want {
				t.Errorf("%s for %s: %s, want %s", client, tt.name, got, tt.want)
			}
			if c, p := h.cluster.take(), h.public.take(); !slices.Equal(c, tt.cluster) || !slices.Equal(p, tt.public) {
				t.Errorf("%s for %s: cluster saw %q, public %q; want %q, %q", client, tt.name, c, p, tt.cluster, tt.public)
			}
		}
	}
	h.public.take()
	if got := h.stub("nope.cart"); got != "NXDOMAIN" { // no such top-level domain, unlike dev and shop
		t.Errorf("nope.cart: %s", got)
	}
	if p := h.public.take(); len(p) > 0 {
		t.Errorf("leaked: %q", p)
	}

	// A second session has names of its own, and may take the first one's over.
	set := func(want ...Config) {
		t.Helper()
		if err := m.Set(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	second := Config{Link: "podnet1", Servers: []netip.Addr{netip.MustParseAddr("198.18.0.10")}, MatchDomains: []string{"blue.podnet.internal"}}
	domains := func(link string) string {
		_, names, _ := strings.Cut(h.resolvectl("domain", link), "): ")
		return strings.Join(strings.Fields(names), " ")
	}
	set(want, second)
	if got := domains("podnet1"); wired() != state || got != "~blue.podnet.internal" || base() != "[192.0.2.53:53]" {
		t.Errorf("with a second: podnet1 %q, base %s, podnet0\n%s", got, base(), wired())
	}
	first := want
	first.MatchDomains, first.SearchDomains = []string{"lab.podnet.internal"}, nil
	second.SearchDomains = search
	set(second, first)
	if got := domains("podnet0"); got != "~lab.podnet.internal" {
		t.Errorf("the first has %q when the second is primary", got)
	}
	if got := domains("podnet1"); got != "shop.svc.cluster.local svc.cluster.local cluster.local ~blue.podnet.internal" {
		t.Errorf("the second has %q when it is primary", got)
	}
	set(want)
	if got := domains("podnet1"); got != "" || wired() != state {
		t.Errorf("after the second: podnet1 %q, podnet0\n%s", got, wired())
	}
	set(want, second)
	h.run("ip", "link", "del", "podnet1") // its tunnel has died, and the first goes on
	set(want, second)
	if wired() != state {
		t.Errorf("after the second's link: podnet0\n%s", wired())
	}

	// A restarted resolved has forgotten everything, and is told again.
	h.daemon.Process.Kill()
	h.daemon.Wait()
	h.startResolved()
	h.until("settings after a restart", func() bool { return wired() == state })

	if err := m.Set(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != before {
		t.Errorf("after revert:\n%s\nbefore:\n%s", got, before)
	}
	if err := m.Set(ctx, []Config{want}); err != nil {
		t.Fatal(err)
	}

	// A second podnet after a kill finds the settings and takes them away.
	next, err := New(ctx, h.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if got := status(); got != before {
		t.Errorf("after cleanup:\n%s\nbefore:\n%s", got, before)
	}

	// The link goes first, as when the daemon's TUN is closed.
	m2, err := New(ctx, h.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := m2.Set(ctx, []Config{want}); err != nil {
		t.Fatal(err)
	}
	h.run("ip", "link", "del", "podnet0")
	for range 2 {
		if err := m2.Close(); err != nil {
			t.Error(err)
		}
	}
	if j, err := readJournal(h.opts.JournalDir); j != nil || err != nil {
		t.Errorf("journal %v, %v", j, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := newResolved(ctx, Options{BusAddress: "unix:path=/nonexistent"}); err == nil {
		t.Error("resolved without a bus")
	}
}
