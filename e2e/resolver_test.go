//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
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
	"golang.org/x/sys/unix"
)

// TestResolvers has every kind of program look for names on a laptop, with
// systemd-resolved and without. A name of the cluster costs one question, and
// the public name server never sees it; a public one never shows at the cluster.
func TestResolvers(t *testing.T) {
	boot := func(options ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		return prepare(ctx, options...)
	}
	programs := resolverPrograms(t)
	glibc := asker{Client: "glibc", Argv: []string{"getent", "ahosts"}}
	rest := []asker{
		{Client: "Go without cgo", Argv: []string{filepath.Join(programs, "go")}},
		{Client: "Go with cgo", Argv: []string{"env", "GODEBUG=netdns=cgo", filepath.Join(programs, "cgo")}},
		{Client: "musl", Argv: []string{filepath.Join(programs, "musl")}},
	}
	t.Run("resolv.conf", func(t *testing.T) {
		tellResolvers(t, "resolv.conf", append([]asker{glibc}, rest...))
	})
	t.Run("systemd-resolved", func(t *testing.T) {
		t.Cleanup(func() {
			if err := boot(); err != nil {
				t.Error(err)
			}
		})
		if err := boot("--resolved"); err != nil {
			t.Fatal(err)
		}
		tellResolvers(t, "resolved", append([]asker{
			{Client: "glibc by nss-resolve", Argv: glibc.Argv},
			{Client: "glibc by nss-dns", Argv: []string{"getent", "-s", "hosts:dns", "ahosts"}},
		}, rest...))
	})
}

// resolverPrograms builds the clients that no package has.
func resolverPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	host("env", "CGO_ENABLED=0", "go", "build", "-o", filepath.Join(dir, "go"), "./e2e/lookup").must(t)
	host("env", "CGO_ENABLED=1", "go", "build", "-o", filepath.Join(dir, "cgo"), "./e2e/lookup").must(t)
	host("musl-gcc", "-static", "-O1", "-o", filepath.Join(dir, "musl"), "e2e/testdata/getaddrinfo.c").must(t)
	return dir
}

// tellResolvers connects, has each client look for each name and judges who saw
// which questions.
func tellResolvers(t *testing.T, mode string, clients []asker) {
	alice.connect(t, "-n", "shop")
	var status struct {
		Connections []struct {
			DNS struct {
				Mode    string
				Listen  []string
				Healthy bool
				Problem string
			}
		}
	}
	if err := json.Unmarshal([]byte(alice.podnet("status", "-o", "json").must(t)), &status); err != nil {
		t.Fatal(err)
	}
	d := status.Connections[0].DNS
	if !d.Healthy {
		t.Errorf("status calls the resolver broken: %+v", d)
	}
	said := publicLog(t)
	before := len(said())

	plan := askPlan{Resolved: mode == "resolved", Podnet: filepath.Join(top, "bin/podnet"), Proxy: d.Listen, Clients: clients}
	service := clusterIP(t, "shop", "web")
	wanted := map[string]string{"www.example.test": "198.51.100.", "nothere.example.test": ""}
	for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"} {
		wanted[name] = service
		plan.Names = append(plan.Names, name)
	}
	plan.Names = append(plan.Names, "www.example.test", "nothere.example.test")
	raw, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var seen []sighted
	if err := json.Unmarshal([]byte(alice.role("resolve", string(raw)).must(t)), &seen); err != nil {
		t.Fatal(err)
	}
	say("%-16s %-22s %-28s %-12s %-12s %-12s %s", mode, "client", "name", "proxy", "cluster", "public", "answer")
	for _, s := range seen {
		say("%-16s %-22s %-28s %-12s %-12s %-12s %s", "", s.Client, s.Name, tally(s.Proxy), tally(s.Cluster), tally(s.Public), strings.Join(s.Answer, " "))
		s.judge(t, wanted[s.Name], plan.Resolved)
	}
	if len(seen) != len(clients)*len(plan.Names) {
		t.Errorf("%d lookups, want %d", len(seen), len(clients)*len(plan.Names))
	}
	for line := range strings.Lines(said()[before:]) {
		if plan.Resolved && strings.Contains(line, " web."+homeDomain) {
			continue
		}
		for _, part := range []string{"cluster.local", ".svc.", " web."} {
			if strings.Contains(line, part) {
				t.Errorf("the public name server saw %s", line)
			}
		}
	}
	report(t, fmt.Sprintf("%s: questions per lookup of a cluster's name, at most (1 of each type)", mode), most(seen))
}

// homeDomain is the search domain that the lab's laptops have of their own.
// systemd-resolved looks for a name of one label below the search domains of all
// links at once, and nothing that one link is told changes that: the name server
// of the laptop's own network is asked for such a name below its own domain.
const homeDomain = "home.example.test."

// judge holds a lookup against what it may cost and show.
func (s sighted) judge(t *testing.T, address string, resolved bool) {
	t.Helper()
	what := s.Client + ", " + s.Name
	if address == "" && len(s.Answer) > 0 || address != "" && !slices.ContainsFunc(s.Answer, func(a string) bool { return strings.HasPrefix(a, address) }) {
		t.Errorf("%s: got %q %s, want %q", what, s.Answer, s.Error, address)
	}
	if strings.HasSuffix(s.Name, ".example.test") {
		for _, q := range s.Cluster {
			if strings.Contains(q, "example") {
				t.Errorf("%s: the cluster saw %s", what, q)
			}
		}
		return
	}
	for _, q := range s.Public {
		if !resolved || strings.Contains(s.Name, ".") || !strings.HasPrefix(q, s.Name+"."+homeDomain) {
			t.Errorf("%s: the public name server saw %s", what, q)
		}
	}
	for _, at := range [][]string{s.Proxy, s.Cluster} {
		if n := ofType(at, "A"); n != 1 {
			t.Errorf("%s: %d questions for A, want one: %q", what, n, at)
		}
		if n := ofType(at, "AAAA"); n > 1 {
			t.Errorf("%s: %d questions for AAAA, want one at most: %q", what, n, at)
		}
	}
}

func ofType(questions []string, qtype string) int {
	n := 0
	for _, q := range questions {
		if strings.HasSuffix(q, " "+qtype) {
			n++
		}
	}
	return n
}

// tally is how many questions there were of each type.
func tally(questions []string) string {
	if len(questions) == 0 {
		return "-"
	}
	text := fmt.Sprintf("A %d AAAA %d", ofType(questions, "A"), ofType(questions, "AAAA"))
	if others := len(questions) - ofType(questions, "A") - ofType(questions, "AAAA"); others > 0 {
		text += fmt.Sprintf(" +%d", others)
	}
	return text
}

func most(seen []sighted) string {
	n := 0
	for _, s := range seen {
		if !strings.HasSuffix(s.Name, ".example.test") {
			n = max(n, ofType(s.Proxy, "A"), ofType(s.Proxy, "AAAA"))
		}
	}
	return fmt.Sprint(n)
}

// publicLog gives what the lab's public name server has logged.
func publicLog(t *testing.T) func() string {
	t.Helper()
	return func() string {
		b, err := os.ReadFile(labFile("log", "internet-dns.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// askPlan is what the role resolve is to do: each client looks for each name.
type askPlan struct {
	Resolved bool // systemd-resolved has a cache to forget
	Podnet   string
	Proxy    []string // where the proxy listens
	Clients  []asker
	Names    []string
}

// asker is a program that prints an address a line for a name, its last
// argument.
type asker struct {
	Client string
	Argv   []string
}

// sighted is a lookup and the questions that it led to, as "NAME TYPE".
type sighted struct {
	Client, Name           string
	Answer                 []string
	Error                  string
	Proxy, Cluster, Public []string
}

// resolveRole PLAN looks at every packet of this machine meanwhile.
func resolveRole(ctx context.Context, args []string) error {
	var plan askPlan
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return err
	}
	eye, err := openEye(plan.Proxy)
	if err != nil {
		return err
	}
	defer eye.close()
	var all []sighted
	for _, c := range plan.Clients {
		for _, name := range plan.Names {
			// The proxy forgets its answers when the namespace is said again.
			if out, err := exec.CommandContext(ctx, plan.Podnet, "namespace", "shop").CombinedOutput(); err != nil {
				return fmt.Errorf("podnet namespace: %w: %s", err, out)
			}
			if plan.Resolved {
				if out, err := exec.CommandContext(ctx, "resolvectl", "flush-caches").CombinedOutput(); err != nil {
					return fmt.Errorf("resolvectl: %w: %s", err, out)
				}
			}
			eye.quiet()
			eye.take()
			s := sighted{Client: c.Client, Name: name}
			out, err := exec.CommandContext(ctx, c.Argv[0], append(slices.Clone(c.Argv[1:]), name)...).Output()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				s.Error = strings.TrimSpace(string(exit.Stderr))
			} else if err != nil {
				return err
			}
			for line := range strings.Lines(string(out)) {
				if a := strings.Fields(line)[0]; !slices.Contains(s.Answer, a) {
					s.Answer = append(s.Answer, a)
				}
			}
			eye.quiet()
			s.Proxy, s.Cluster, s.Public = eye.take()
			all = append(all, s)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// eye sees the DNS questions that leave this machine's sockets.
type eye struct {
	fd     int
	tunnel int          // podnet's interface
	proxy  []netip.Addr // the proxy's own addresses
	done   chan struct{}

	mu     sync.Mutex
	last   time.Time // when one was seen
	seen   map[string][]string
	closed bool
}

// eyeWait is how long the eye waits for a packet at a time, and for how long
// nobody may have asked anything for it to be quiet.
const (
	eyeWait  = 20 * time.Millisecond
	eyeQuiet = 150 * time.Millisecond
)

func openEye(proxy []string) (*eye, error) {
	e := &eye{done: make(chan struct{}), seen: map[string][]string{}}
	for _, p := range proxy {
		at, err := netip.ParseAddrPort(p)
		if err != nil {
			return nil, err
		}
		e.proxy = append(e.proxy, at.Addr())
	}
	link, err := net.InterfaceByName("podnet0")
	if err != nil {
		return nil, err
	}
	e.tunnel = link.Index
	everything := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(everything)); err != nil {
		return nil, fmt.Errorf("look at packets: %w", err)
	}
	wait := unix.NsecToTimeval(eyeWait.Nanoseconds())
	if err := unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, err
	}
	go e.look()
	return e, nil
}

func (e *eye) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	<-e.done
	_ = unix.Close(e.fd)
}

func (e *eye) look() {
	defer close(e.done)
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(e.fd, buf, 0)
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if err == nil && ok && link.Pkttype == unix.PACKET_OUTGOING {
			e.noteLocked(link.Ifindex, buf[:n])
		}
		e.mu.Unlock()
	}
}

// noteLocked notes whom a question goes to.
func (e *eye) noteLocked(link int, packet []byte) {
	to, q := question(packet)
	if q == "" || strings.Contains(q, "podnet-check") { // podnet's own
		return
	}
	who := "public"
	switch {
	case slices.Contains(e.proxy, to):
		who = "proxy"
	case to.IsLoopback(): // systemd-resolved's own socket
		return
	case link == e.tunnel:
		who = "cluster"
	}
	e.seen[who] = append(e.seen[who], q)
	e.last = time.Now()
}

// quiet waits until nobody has asked for a moment.
func (e *eye) quiet() {
	began := time.Now()
	for {
		e.mu.Lock()
		last := e.last
		e.mu.Unlock()
		if last.Before(began) {
			last = began
		}
		rest := eyeQuiet - time.Since(last)
		if rest <= 0 {
			return
		}
		time.Sleep(rest)
	}
}

func (e *eye) take() (proxy, cluster, public []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.seen
	e.seen = map[string][]string{}
	return seen["proxy"], seen["cluster"], seen["public"]
}

// question reads a DNS question, as "NAME TYPE", out of an IP packet to port 53;
// "" where there is none. A question over TCP is taken for one packet.
func question(ip []byte) (to netip.Addr, q string) {
	var transport byte
	var rest []byte
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4 && len(ip) >= int(ip[0]&0xf)*4:
		transport, rest = ip[9], ip[int(ip[0]&0xf)*4:]
		to, _ = netip.AddrFromSlice(ip[16:20])
	case len(ip) >= 40 && ip[0]>>4 == 6:
		transport, rest = ip[6], ip[40:]
		to, _ = netip.AddrFromSlice(ip[24:40])
	}
	if len(rest) < 20 || binary.BigEndian.Uint16(rest[2:]) != 53 {
		return to, ""
	}
	switch transport {
	case unix.IPPROTO_UDP:
		rest = rest[8:]
	case unix.IPPROTO_TCP:
		header := int(rest[12]>>4) * 4
		if len(rest) <= header+2 {
			return to, ""
		}
		rest = rest[header+2:]
	default:
		return to, ""
	}
	var m dns.Msg
	if m.Unpack(rest) != nil || m.Response || len(m.Question) != 1 {
		return to, ""
	}
	return to, strings.ToLower(m.Question[0].Name) + " " + dns.TypeToString[m.Question[0].Qtype]
}
