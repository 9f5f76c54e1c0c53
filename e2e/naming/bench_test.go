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
	"runtime"
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

// seconds is how long dnsperf asks each time.
const seconds = "2"

// load is what dnsperf is told besides where and what: 8 clients, 100
// questions under way.
var load = []string{"-c", "8", "-q", "100", "-T", "1"}

// rates are how many questions a second the latency is measured at, besides with
// 100 questions under way at all times. By Little's law these wait 100/rate
// seconds on the average, whatever the server: with 30,000 answers a second that
// is 3.3 ms, and how it is spread tells of the scheduling of dnsperf's two threads
// and the server's on the machine's cores. At a rate that the machine can do
// without effort it is the server that shows.
var rates = []string{"1000", "5000", "10000", "20000"}

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
	servers := []server{
		{"podnet", filepath.Base(os.Args[0]), serveZoneElsewhere(b, s, zone, coreDNS)}, {"CoreDNS", "coredns", coreDNS}, {"unbound", "unbound", runUnbound(b, dir, data.String())},
	}
	for _, server := range servers {
		apiserver.Eventually(b, 30*time.Second, server.name+" knows the names", func() error {
			c, err := dns.Dial("tcp", server.at.String())
			if err != nil {
				return err
			}
			defer c.Close()
			if a := answerOf(b, c, dns.Question{Name: fmt.Sprintf("svc-%d.shop.svc.%s.", services-1, zone), Qtype: dns.TypeA, Qclass: dns.ClassINET}); len(a.answers) != 1 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	}
	for b.Loop() {
		// As many questions as the server takes; the same, with each answer told; and
		// at each rate.
		loads := [][]string{nil, {"-v"}}
		for _, rate := range rates {
			loads = append(loads, []string{"-v", "-Q", rate})
		}
		runs := make([][][]run, len(servers)) // by server and load
		for range rounds {
			for i, load := range loads {
				for j, server := range servers {
					if runs[j] == nil {
						runs[j] = make([][]run, len(loads))
					}
					runs[j][i] = append(runs[j][i], perf(b, dir, server, questions, load...))
				}
			}
		}
		for j, server := range servers {
			lost := 0.0
			for _, r := range slices.Concat(runs[j]...) {
				lost += r.lost
			}
			b.Logf("%-8s %s, %.0f lost", server.name, speed(runs[j][0]), lost)
			b.Logf("%-8s 100 under way: %s", server.name, late(runs[j][1]))
			for i, rate := range rates {
				b.Logf("%-8s %6s queries/s: %s", server.name, rate, late(runs[j][2+i]))
			}
			b.ReportMetric(median(runs[j][0], func(r run) float64 { return r.rate }), server.name+"-queries/s")
		}
	}
}

// speed says in a line how fast a server was, and what else the machine did.
func speed(runs []run) string {
	all := slices.SortedFunc(slices.Values(runs), func(x, y run) int { return cmp.Compare(x.rate, y.rate) })
	return fmt.Sprintf("%7.0f queries/s (%.0f to %.0f); CPU for each %.1f us, and %.1f us of dnsperf's; %.0f %% of the machine for other programs, %.0f %% for its host",
		median(runs, func(r run) float64 { return r.rate }), all[0].rate, all[len(all)-1].rate, 1e6*median(runs, func(r run) float64 { return r.cpu }), 1e6*median(runs, func(r run) float64 { return r.own }),
		100*median(runs, func(r run) float64 { return r.others }), 100*median(runs, func(r run) float64 { return r.stolen }))
}

// late says in a line how late answers were, and how late they were in the run that
// had most of the machine: what others do on it shows in the hundredth answer first.
func late(runs []run) string {
	of := func(percent int) float64 {
		return 1000 * median(runs, func(r run) float64 { return r.within(percent) })
	}
	quiet := slices.MinFunc(runs, func(x, y run) int { return cmp.Compare(x.others+x.stolen, y.others+y.stolen) })
	return fmt.Sprintf("average %.2f ms, half within %.2f, 99 of 100 within %.2f ms, longest %.1f; with %.0f %% of the machine elsewhere, average %.2f, 99 of 100 within %.2f ms", 1000*median(runs, func(r run) float64 { return r.average }),
		of(50), of(99), of(100), 100*(quiet.others+quiet.stolen), 1000*quiet.average, 1000*quiet.within(99))
}

// server is one that is measured: a child of ours.
type server struct {
	name, program string
	at            netip.AddrPort
}

// run is one run of dnsperf: queries per second and lost ones, seconds of latency,
// seconds of CPU for each query, the server's and dnsperf's own, and the parts of the
// machine's time that other programs had, and that the machine's host took.
type run struct {
	rate, average, lost, cpu, own, others, stolen float64
	took                                          []float64 // sorted; empty without -v
}

// within is the time that percent of 100 answers have taken at most.
func (r run) within(percent int) float64 {
	return r.took[min(len(r.took)*percent/100, len(r.took)-1)]
}

func median(runs []run, of func(run) float64) float64 {
	var all []float64
	for _, r := range runs {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// perf has dnsperf ask. It has no percentiles, but tells of each answer with -v:
// into a file, since a pipe would have it wait for us.
func perf(b *testing.B, dir string, s server, questions string, more ...string) run {
	b.Helper()
	out, err := os.Create(filepath.Join(dir, "dnsperf"))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	args := slices.Concat([]string{"-s", s.at.Addr().String(), "-p", strconv.Itoa(int(s.at.Port())), "-d", questions, "-l", seconds}, load, more)
	cmd := exec.CommandContext(b.Context(), "dnsperf", args...)
	cmd.Stdout, cmd.Stderr = out, out
	busy, stolen := machine(b)
	before, began := s.cpu(b), time.Now()
	failed := cmd.Run()
	took, used := time.Since(began).Seconds()*float64(runtime.NumCPU()), s.cpu(b)-before
	busyNow, stolenNow := machine(b)
	said, err := os.ReadFile(out.Name())
	if err != nil || failed != nil {
		b.Fatalf("%v, %v\n%s", err, failed, said[:min(len(said), 4096)])
	}
	number := func(pattern string) float64 {
		m := regexp.MustCompile(pattern).FindSubmatch(said)
		if m == nil {
			b.Fatalf("no %s in what dnsperf says", pattern)
		}
		return parse(b, m[1])
	}
	answers, own := number(`Queries completed:\s+([0-9]+)`), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	r := run{
		own: own / answers, cpu: used / answers, others: (busyNow - busy - own - used) / took, stolen: (stolenNow - stolen) / took,
		rate: number(`Queries per second:\s+([0-9.]+)`), lost: number(`Queries lost:\s+([0-9]+)`), average: number(`Average Latency \(s\):\s+([0-9.]+)`),
	}
	for _, m := range regexp.MustCompile(`(?m)^> NOERROR .* ([0-9.]+)$`).FindAllSubmatch(said, -1) {
		r.took = append(r.took, parse(b, m[1]))
	}
	slices.Sort(r.took)
	return r
}

// cpu is how many seconds of it the server has used.
func (s server) cpu(b *testing.B) float64 {
	b.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		b.Fatal(err)
	}
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil {
				continue
			}
			_, name, _ := strings.Cut(string(stat), " (")
			name, rest, _ := strings.Cut(name, ") ")
			if name != s.program[:min(len(s.program), 15)] {
				continue
			}
			f := strings.Fields(rest) // proc_pid_stat(5), from field 3 on
			return (parse(b, []byte(f[11])) + parse(b, []byte(f[12]))) / ticks
		}
	}
	b.Fatalf("no child %s", s.program)
	return 0
}

// ticks is how many a second /proc counts times in.
const ticks = 100

// machine is how many seconds all CPUs together have worked, and how many the
// machine's host has had them do something else.
func machine(b *testing.B) (busy, stolen float64) {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal (proc_stat(5))
	for _, i := range []int{1, 2, 3, 6, 7} {
		busy += parse(b, []byte(f[i])) / ticks
	}
	return busy, parse(b, []byte(f[8])) / ticks
}

func parse(b *testing.B, text []byte) float64 {
	b.Helper()
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// runUnbound serves local data with one thread, as much as dnsperf has.
func runUnbound(b *testing.B, dir, data string) netip.AddrPort {
	b.Helper()
	at := freeAddr(b)
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
