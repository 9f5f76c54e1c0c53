package naming

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/e2e/apiserver"
)

// rounds is how often each server is measured, in turn with the others, since
// the machine has other work as well. The median counts.
const rounds = 5

// load is what dnsperf is told besides where and what: 8 clients, 100
// questions under way.
var load = []string{"-l", "4", "-c", "8", "-q", "100", "-T", "1"}

// BenchmarkServers has dnsperf ask podnet, CoreDNS and unbound for the same
// names, and prints a table. -benchtime 1x is enough.
//
//	go test -run '^$' -bench Servers -benchtime 1x ./e2e/naming
func BenchmarkServers(b *testing.B) {
	for _, name := range []string{"dnsperf", "unbound"} {
		if _, err := exec.LookPath(name); err != nil {
			b.Skipf("no %s on this machine (apt-get install %s)", name, name)
		}
	}
	const services = 1000
	s := apiserver.Start(b)
	admin := s.Admin(b)
	f := newFixture()
	var names, data strings.Builder
	for i := range services {
		addr := fmt.Sprintf("10.96.%d.%d", 100+i/250, i%250+1)
		f.service("shop", fmt.Sprintf("svc-%d", i), ips(addr), port("http", "TCP", 80))
		name := fmt.Sprintf("svc-%d.shop.svc.%s", i, zone)
		fmt.Fprintf(&names, "%s A\n", name)
		fmt.Fprintf(&data, "  local-data: \"%s. 5 A %s\"\n", name, addr)
	}
	f.create(b, admin)
	dir := b.TempDir()
	questions := filepath.Join(dir, "questions")
	if err := os.WriteFile(questions, []byte(names.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	coreDNS := s.CoreDNS(b, zone, []string{"pods insecure", "ttl 30"}, nil)
	servers := []struct {
		name string
		at   netip.AddrPort
	}{{"podnet", serveZone(b, s, zone, coreDNS)}, {"CoreDNS", coreDNS}, {"unbound", runUnbound(b, dir, data.String())}}
	for _, server := range servers {
		apiserver.Eventually(b, 30*time.Second, server.name+" knows the names", func() error {
			c := dialTo(b, server.at)
			defer c.Close()
			if a := answerOf(b, c, dns.Question{Name: fmt.Sprintf("svc-%d.shop.svc.%s.", services-1, zone), Qtype: dns.TypeA, Qclass: dns.ClassINET}); len(a.answers) != 1 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
	for b.Loop() {
		measured := map[string][]measure{}
		for range rounds {
			for _, server := range servers {
				measured[server.name] = append(measured[server.name], perf(b, server.at, questions))
			}
		}
		for _, server := range servers {
			all := measured[server.name]
			slices.SortFunc(all, func(x, y measure) int { return cmp.Compare(x.rate, y.rate) })
			m, lost := all[len(all)/2], 0.0
			for _, one := range all {
				lost += one.lost
			}
			b.Logf("%-8s %7.0f queries/s (%.0f to %.0f), average %.2f ms, 99 of 100 within %.2f ms, longest %.1f ms, %.0f lost; at 5,000 queries/s 99 of 100 within %.2f ms", server.name,
				m.rate, all[0].rate, all[len(all)-1].rate, m.average*1000, late(b, server.at, questions)*1000, m.longest*1000, lost, late(b, server.at, questions, "-Q", "5000")*1000)
			b.ReportMetric(m.rate, server.name+"-queries/s")
		}
	}
}

// measure is what dnsperf says: queries per second, seconds, queries.
type measure struct{ rate, average, longest, lost float64 }

func perf(b *testing.B, server netip.AddrPort, questions string) measure {
	b.Helper()
	out := dnsperf(b, server, questions)
	number := func(pattern string) float64 {
		m := regexp.MustCompile(pattern).FindSubmatch(out)
		if m == nil {
			b.Fatalf("no %s in\n%s", pattern, out)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	return measure{
		rate: number(`Queries per second:\s+([0-9.]+)`), lost: number(`Queries lost:\s+([0-9]+)`),
		average: number(`Average Latency \(s\):\s+([0-9.]+)`), longest: number(`Average Latency.*max ([0-9.]+)`),
	}
}

// late is how many seconds 99 of 100 questions take at most. dnsperf has no
// percentiles, but tells of each answer when it is asked to.
func late(b *testing.B, server netip.AddrPort, questions string, options ...string) float64 {
	b.Helper()
	var took []float64
	for _, m := range regexp.MustCompile(`(?m)^> NOERROR .* ([0-9.]+)$`).FindAllSubmatch(dnsperf(b, server, questions, append(options, "-v")...), -1) {
		seconds, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, seconds)
	}
	if len(took) == 0 {
		b.Fatal("dnsperf tells of no answer")
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

func dnsperf(b *testing.B, server netip.AddrPort, questions string, more ...string) []byte {
	b.Helper()
	args := slices.Concat([]string{"-s", server.Addr().String(), "-p", strconv.Itoa(int(server.Port())), "-d", questions}, load, more)
	out, err := exec.CommandContext(b.Context(), "dnsperf", args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return out
}

// runUnbound serves local data with one thread, as much as dnsperf has.
func runUnbound(b *testing.B, dir, data string) netip.AddrPort {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "unbound.conf")
	text := fmt.Sprintf("server:\n  interface: %s\n  port: %d\n  num-threads: 1\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  directory: %q\n  pidfile: \"\"\n  use-syslog: no\n  local-zone: \"%s.\" static\n%sremote-control:\n  control-enable: no\n",
		at.Addr(), at.Port(), dir, zone, data)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	unbound, err := exec.LookPath("unbound")
	if err != nil {
		b.Fatal(err)
	}
	apiserver.Run(b, unbound, "-c", config)
	apiserver.Eventually(b, 10*time.Second, "unbound listens", func() error {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return at
}
