package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/internal/limits"
	"podnet.dev/internal/measure"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

// These tests have one user flood the gateway, which is a process of its own, and
// measure how another user fares. The figures are printed; the tests fail where
// something is broken and not where the machine is busy.

// targetRole accepts connections at the address on standard input and keeps them
// until its input ends, answering each byte.
func targetRole() error {
	var at string
	if _, err := fmt.Fscanln(os.Stdin, &at); err != nil {
		return err
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				time.Sleep(time.Millisecond) // out of files: a moment later there may be some
				continue
			}
			// Without splice(2), which would take two more files for each.
			go func() { _, _ = io.Copy(struct{ io.Writer }{c}, c); _ = c.Close() }()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// targets are pods of shop in processes of their own, since one may not have as many
// files as the gateway has flows.
func (s *stage) targets(n int) []netip.AddrPort {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	addr := ownAddress(s.T)
	var all []netip.AddrPort
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "many", Labels: map[string]string{discoveryv1.LabelServiceName: "many", discoveryv1.LabelManagedBy: endpointsByController}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{addr.String()}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "many-0"}}},
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "many"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.9"}}
	tcp := corev1.ProtocolTCP
	for i := range n {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), roleVariable+"=target")
		in, err := cmd.StdinPipe()
		if err != nil {
			s.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			s.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		var said string
		if _, err := fmt.Fprintln(in, net.JoinHostPort(addr.String(), "0")); err != nil {
			s.Fatal(err)
		}
		if _, err := fmt.Fscanln(out, &said); err != nil {
			s.Fatal(err)
		}
		at := netip.MustParseAddrPort(said)
		name, port := fmt.Sprintf("p%d", i), int32(at.Port())
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &tcp})
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: name, Port: port})
		all = append(all, at)
	}
	s.create(service)
	s.create(slice)
	return all
}

// fares has a laptop connect again and again for a while, and tells how long it took,
// sorted, and how often it failed, which counts as the longest that it waits.
func (l *laptop) fares(to netip.AddrPort, d time.Duration) (took []time.Duration, failed int) {
	const patience = 5 * time.Second
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		began := time.Now()
		c, err := l.dial(to, patience)
		if err != nil {
			failed++
			took = append(took, patience)
			continue
		}
		took = append(took, time.Since(began))
		_ = c.Close()
	}
	slices.Sort(took)
	return took, failed
}

// printFare prints how somebody fared and returns the 99th percentile.
func printFare(t *testing.T, what string, took []time.Duration, failed int) time.Duration {
	t.Helper()
	if len(took) == failed {
		t.Errorf("%s: %d connections failed, and none was made", what, failed)
		return 0
	}
	p99 := took[len(took)*99/100]
	t.Logf("%s: %d connections, %d failed, half within %v, 99 of 100 within %v", what, len(took), failed, took[len(took)/2].Round(10*time.Microsecond), p99.Round(10*time.Microsecond))
	return p99
}

// cpu is the time that a process has computed.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, of 100 a second (proc(5))
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// metric is a value of the gateway whose metrics are at that port.
func metric(t *testing.T, web uint16, series string) float64 {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", web))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s", series)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// putSYN fills b with the first packet of a connection, whose checksums are right.
func putSYN(b []byte, src, dst netip.AddrPort) {
	packet.PutIP(b, packet.TCP, src.Addr(), dst.Addr())
	tcp := b[packet.HeaderIP(src.Addr()):]
	clear(tcp)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[12], tcp[13] = 5<<4, 2
	binary.BigEndian.PutUint16(tcp[14:], 64240)
	var sum uint32
	add := func(p []byte) {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	add(src.Addr().AsSlice())
	add(dst.Addr().AsSlice())
	add(tcp)
	sum += uint32(packet.TCP) + uint32(len(tcp))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}

// floodSYN sends first packets of connections that go no further, until ctx ends, and
// tells how many a second.
func (l *laptop) floodSYN(ctx context.Context, to netip.AddrPort, rate int) float64 {
	const burst = 100
	own := netip.MustParseAddr(l.peer.Status.Address4)
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		for range burst {
			b := netstack.NewBuffer(40)
			putSYN(b.B, netip.AddrPortFrom(own, uint16(1024+sent%60000)), to)
			l.stack.Send(b, true)
			sent++
		}
		time.Sleep(time.Duration(sent)*time.Second/time.Duration(rate) - time.Since(began))
	}
	return float64(sent) / time.Since(began).Seconds()
}

// TestSYNFlood has one user send 50,000 first packets of connections a second.
func TestSYNFlood(t *testing.T) {
	s := setStage(t)
	at := s.targets(1)[0]
	pid, port, web, _ := s.startBounded(limits.Default(), "460MiB")
	route := netip.PrefixFrom(at.Addr(), 32)
	eve, ada := s.enrol("eve", 300, "shop"), s.as("ada").enrol("ada", 300, "shop")
	eve.connectAt(port, route)
	ada.connectAt(port, route)
	const lasts = 4 * time.Second
	took, failed := ada.fares(at, lasts)
	printFare(t, "at rest", took, failed)

	flooding, stop := context.WithCancel(t.Context())
	defer stop()
	sent := make(chan float64, 1)
	go func() { sent <- eve.floodSYN(flooding, at, 50000) }()
	before, began := cpu(t, pid), time.Now()
	took, failed = ada.fares(at, lasts)
	busy := float64(cpu(t, pid)-before) / float64(time.Since(began))
	measure.AtMost(t, "[37] 99 of 100 of another user's connects beside the flood", printFare(t, "beside the flood", took, failed), 50*time.Millisecond)
	stop()
	over := time.Now()
	t.Logf("MEASURED [37] %.0f packets a second; the gateway used %.2f cores and let %.0f by, having refused %.0f for the rate and %.0f for those being opened", <-sent, busy,
		metric(t, web, `podnet_gateway_flows_opened_total{proto="tcp"}`), metric(t, web, `podnet_gateway_flows_over_limit_total{limit="user-rate"}`),
		metric(t, web, `podnet_gateway_flows_over_limit_total{limit="user-opening"}`))
	for {
		c, err := eve.dial(at, 5*time.Second)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Since(over) > time.Minute {
			t.Fatal("who has flooded is never let in again")
		}
	}
	measure.AtMost(t, "[37] the flood's end to a connect of who has flooded", time.Since(over), 5*time.Second)
}

// open tries to open n connections, or as many as ctx has time for, at most 200 at once
// and no faster than pace, and returns those that are open.
func (l *laptop) open(ctx context.Context, to []netip.AddrPort, n int, pace rate.Limit) []net.Conn {
	all := make([]net.Conn, n)
	paced := rate.NewLimiter(pace, 100)
	var g errgroup.Group
	g.SetLimit(200)
	for i := range n {
		if paced.Wait(ctx) != nil {
			break
		}
		g.Go(func() error {
			dialling, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if c, err := l.stack.DialTCP(dialling, to[i%len(to)]); err == nil {
				all[i] = c
			}
			return nil
		})
	}
	_ = g.Wait()
	return slices.DeleteFunc(all, func(c net.Conn) bool { return c == nil })
}

// TestManyFlows has one user open as many connections as the gateway may have files
// for, 20,000 at most, and try for as many again while another one is watched.
func TestManyFlows(t *testing.T) {
	if os.Getenv("PODNET_E2E_LONG") == "" {
		t.Skip("opens 20,000 connections: a minute; PODNET_E2E_LONG=1 runs it")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	many := min(20000, int(files.Max)-1000) // some are for everybody else
	s := setStage(t)
	to := s.targets(2)
	l := limits.Default()
	l.UserConnections = many
	pid, port, web, _ := s.startBounded(l, "460MiB")
	route := netip.PrefixFrom(to[0].Addr(), 32)
	eve, ada := s.enrol("eve", 300, "shop"), s.as("ada").enrol("ada", 300, "shop")
	eve.connectAt(port, route)
	ada.connectAt(port, route)
	const lasts = 8 * time.Second
	took, failed := ada.fares(to[0], lasts)
	rest := printFare(t, "at rest", took, failed)

	began := time.Now()
	open := eve.open(t.Context(), to, many, rate.Inf)
	t.Logf("MEASURED [36] %d connections of %d open after %v; memory %.0f MiB, %.0f MiB of it for good", len(open), many, time.Since(began).Round(time.Second),
		memory(t, pid, "VmRSS"), metric(t, web, "podnet_gateway_memory_used_bytes")/(1<<20))
	if len(open) < many*9/10 {
		t.Errorf("only %d connections", len(open))
	}
	took, failed = ada.fares(to[0], lasts)
	printFare(t, "beside them", took, failed)

	trying, stop := context.WithTimeout(t.Context(), 2*lasts)
	defer stop()
	more := make(chan int, 1)
	go func() {
		// Over all of the time in which ada is watched; all at once would be over in
		// half of it, and would measure how these two share the test's own process.
		further := eve.open(trying, to, many, rate.Limit(float64(many)/lasts.Seconds()))
		for _, c := range further {
			_ = c.Close()
		}
		more <- len(further)
	}()
	took, failed = ada.fares(to[0], lasts)
	p99 := printFare(t, "while she tries for as many again", took, failed)
	measure.AtMost(t, "[36] 99 of 100 of another user's connects beside it, as against those at rest", measure.Times(float64(p99)/float64(rest)), 2)
	n, refused := <-more, metric(t, web, `podnet_gateway_flows_over_limit_total{limit="user-connections"}`)
	t.Logf("MEASURED [36] %d more were opened, %.0f refused", n, refused)
	peak := memory(t, pid, "VmHWM")
	measure.AtMost(t, fmt.Sprintf("[36] memory of the gateway, the most that it ever was, %d connections open", len(open)), measure.MiB(peak), 512)
	if peak > 512 {
		t.Errorf("memory: %.0f MiB", peak)
	}
	if n > many/10 || refused == 0 {
		t.Errorf("%d connections beyond the limit, %.0f refused", n, refused)
	}
	for _, c := range open {
		_ = c.Close()
	}
}

// TestOutOfMemory has one user open connections at a gateway that has memory for few.
// It refuses, ends some, and lives.
func TestOutOfMemory(t *testing.T) {
	if os.Getenv("PODNET_E2E_LONG") == "" {
		t.Skip("opens thousands of connections: half a minute; PODNET_E2E_LONG=1 runs it")
	}
	s := setStage(t)
	to := s.targets(1)
	l := limits.Default()
	l.UserRate = 0
	pid, port, web, _ := s.startBounded(l, "96MiB")
	route := netip.PrefixFrom(to[0].Addr(), 32)
	eve, ada := s.enrol("eve", 300, "shop"), s.as("ada").enrol("ada", 300, "shop")
	eve.connectAt(port, route)
	ada.connectAt(port, route)
	first, err := ada.dial(to[0], 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	t.Logf("before: %.1f MiB are used for good, of %.0f", metric(t, web, "podnet_gateway_memory_used_bytes")/(1<<20), metric(t, web, "podnet_gateway_memory_budget_bytes")/(1<<20))
	trying, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	open := eve.open(trying, to, 8000, rate.Inf)
	refused := metric(t, web, `podnet_gateway_flows_over_limit_total{limit="memory"}`)
	t.Logf("MEASURED [36] %d connections were opened, %.0f refused or ended; memory %.0f MiB at the most, %.1f MiB of it for good", len(open), refused,
		memory(t, pid, "VmHWM"), metric(t, web, "podnet_gateway_memory_used_bytes")/(1<<20))
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if err := echo(first); err != nil {
		t.Errorf("the other user's connection: %v", err)
	}
	for _, c := range open {
		_ = c.Close()
	}
	began := time.Now()
	for {
		c, err := ada.dial(to[0], 5*time.Second)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal(errors.New("nobody is ever let in again"))
		}
	}
	t.Logf("connections are open again after %v", time.Since(began).Round(10*time.Millisecond))
}
