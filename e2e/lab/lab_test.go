//go:build e2e

// These tests use the lab that is up and leave it as it was; where none is up
// they start one and take it down again:
//
//	go test -tags e2e ./e2e/lab
package main

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the lab's own command, built by TestMain.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lab-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "lab")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build lab: %v\n%s", err, out)
			return 1
		}
		if _, err := try("status"); err != nil && os.Geteuid() == 0 {
			if _, err := try("up"); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer func() { _, _ = try("down") }()
		}
		return m.Run()
	}())
}

// needsLab takes care that the next test finds the router as it should be.
func needsLab(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
	lab(t, "heal")
	t.Cleanup(func() { lab(t, "heal") })
}

func try(args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, talk.String())
	}
	return strings.TrimSpace(out.String()), err
}

func lab(t testing.TB, args ...string) string {
	t.Helper()
	out, err := try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// on runs a shell command on a machine.
func on(t testing.TB, machine, script string) string {
	t.Helper()
	return lab(t, "exec", machine, "--", "sh", "-c", script)
}

// TestClusterIsReal asks the cluster for what a cluster does.
func TestClusterIsReal(t *testing.T) {
	needsLab(t)
	if v := on(t, "laptop", "kubectl version | grep Server"); !strings.Contains(v, "v1.34") {
		t.Errorf("server: %q", v)
	}
	script := `dns=10.96.0.10
		dig +short @$dns web.shop.svc.cluster.local
		dig +short @$dns docs.shop.svc.cluster.local | head -1
		curl -sS $(dig +short @$dns web.shop.svc.cluster.local)
		echo ahoy | socat -T1 - UDP:$(dig +short @$dns web.shop.svc.cluster.local):5353`
	out := on(t, "node1", script)
	if !regexp.MustCompile(`(?s)^10\.96\.\d+\.\d+\nwww.example.test.\nhello from web-\S+\nahoy$`).MatchString(out) {
		t.Errorf("from the node:\n%s", out)
	}
	pods := map[string]bool{}
	for range 30 {
		pods[on(t, "node1", "curl -sS $(dig +short @10.96.0.10 web.shop.svc.cluster.local)")] = true
	}
	if len(pods) != 2 {
		t.Errorf("the Service has %d pods answer, want 2: %v", len(pods), pods)
	}
	_, err := try("exec", "node1", "--", "sh", "-c", "curl -sS --max-time 5 $(dig +short @10.96.0.10 refuses.shop.svc.cluster.local)")
	if err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("what refuses did not: %v", err)
	}
}

// TestLaptopIsOutside: it has the API server and the lab's internet, and no
// way to a pod.
func TestLaptopIsOutside(t *testing.T) {
	needsLab(t) // the second laptop: the demo leaves the first one connected
	if got := on(t, "laptop2", "hostname; dig +short www.example.test; curl -sS http://www.example.test"); got != "laptop2\n198.51.100.53\nhello from www.example.test" {
		t.Errorf("the internet says %q", got)
	}
	pod := on(t, "laptop2", "kubectl get pods -n shop -l app=web -o jsonpath='{.items[0].status.podIP}'")
	start := time.Now()
	if out, err := try("exec", "laptop2", "--", "curl", "-sS", "--max-time", "5", "http://"+pod+":8080"); err == nil {
		t.Errorf("the laptop reaches pod %s without podnet: %s", pod, out)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the router took %v to say that it knows no way", took)
	}
	got := on(t, "laptop2", "kubectl port-forward -n shop deploy/web 18080:8080 >/dev/null & trap \"kill $!\" EXIT; "+
		"for i in $(seq 50); do curl -sS http://127.0.0.1:18080 2>/dev/null && break; sleep 0.1; done")
	if !strings.HasPrefix(got, "hello from web-") {
		t.Errorf("through a port-forward: %q", got)
	}
}

func TestUsersAreWhoTheyAre(t *testing.T) {
	needsLab(t)
	for user, want := range map[string]string{"admin": "system:masters", "alice": "dev", "bob": "dev"} {
		if got := lab(t, "exec", "laptop", "--user", user, "--", "kubectl", "auth", "whoami"); !strings.Contains(got, user) || !strings.Contains(got, want) {
			t.Errorf("%s is\n%s", user, got)
		}
	}
	for what, want := range map[string]string{
		"create pods --subresource=portforward -n shop": "yes", "create pods --subresource=portforward -n pay": "no", "get pods -n pay": "no",
	} {
		args := append([]string{"exec", "laptop", "--user", "alice", "--", "kubectl", "auth", "can-i"}, strings.Fields(what)...)
		if got, _ := try(args...); got != want { // "no" has exit code 1
			t.Errorf("alice can %s: %q, want %q", what, got, want)
		}
	}
	if got := lab(t, "exec", "laptop", "--user", "alice", "--unprivileged", "--", "id", "-un"); got != "alice" {
		t.Errorf("without root's rights alice is %q", got)
	}
}

func TestCommandTakesThisProcessesPlace(t *testing.T) {
	needsLab(t)
	err := exec.Command(program, "exec", "laptop", "--", "sh", "-c", "exit 42").Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 42 {
		t.Errorf("exit code: %v", err)
	}
	cmd := exec.Command(program, "exec", "laptop", "--", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, ok := cmd.Wait().(*exec.ExitError); !ok || exit.ExitCode() != 3 {
		t.Error("the command did not get the signal")
	}
}

// TestMachinesKeepToThemselves: what one has is not the host's nor another's.
func TestMachinesKeepToThemselves(t *testing.T) {
	needsLab(t)
	before, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	on(t, "laptop", "echo 192.0.2.1 mine >> /etc/hosts; touch /run/mine")
	defer on(t, "laptop", "sed -i /mine/d /etc/hosts; rm /run/mine")
	if after, _ := os.ReadFile("/etc/hosts"); !bytes.Equal(before, after) {
		t.Error("the host's /etc/hosts changed")
	}
	if got := on(t, "laptop2", "grep -c mine /etc/hosts; ls /run/mine 2>/dev/null; true"); got != "0" {
		t.Errorf("laptop2 has it too: %q", got)
	}
	if _, err := os.Stat("/run/mine"); err == nil {
		t.Error("the host's /run changed")
	}
	if got := on(t, "laptop", "ls /sys/class/net | tr '\\n' ' '"); strings.Contains(got, "cni0") || !strings.Contains(got, "eth0") {
		t.Errorf("interfaces in /sys: %q", got)
	}
}

func reaches(machine, addr string) bool {
	_, err := try("exec", machine, "--", "ping", "-c1", "-W1", "-q", addr)
	return err == nil
}

const node1 = "10.77.1.2"

func TestCutAndHeal(t *testing.T) {
	needsLab(t)
	lab(t, "cut", "laptop", "node1")
	if reaches("laptop", node1) || !reaches("laptop2", node1) || !reaches("laptop", "198.51.100.53") {
		t.Error("cut laptop node1 cut something else")
	}
	lab(t, "cut", "laptop2", "router")
	if reaches("laptop2", node1) || reaches("laptop2", "198.51.100.53") {
		t.Error("laptop2 is not cut off")
	}
	lab(t, "heal", "node1", "laptop")
	lab(t, "heal", "router", "laptop2")
	if !reaches("laptop", node1) || !reaches("laptop2", "198.51.100.53") {
		t.Error("not healed")
	}
}

// TestWireIsAsBadAsSaid measures delay, loss, rate and packet size.
func TestWireIsAsBadAsSaid(t *testing.T) {
	needsLab(t)
	lab(t, "wire", "laptop", "--delay", "30ms")
	for _, addr := range []string{node1, "fd77:6c61:6200:1::2"} {
		out := on(t, "laptop", "ping -c5 -i0.2 -q "+addr)
		if rtt := number(t, out, `= ([\d.]+)/`); rtt < 60 || rtt > 70 {
			t.Errorf("fastest round trip to %s %v ms, want 60", addr, rtt)
		}
	}
	lab(t, "wire", "laptop", "--loss", "20%")
	out, _ := try("exec", "laptop", "--", "ping", "-c400", "-i0.005", "-W1", "-q", node1)
	if lost := number(t, out, `([\d.]+)% packet loss`); math.Abs(lost-36) > 9 { // either way: 1 - 0.8*0.8
		t.Errorf("lost %v %% of round trips, want 36", lost)
	}
	lab(t, "wire", "laptop", "--rate", "20mbit")
	start := time.Now()
	on(t, "laptop", "kubectl port-forward -n shop deploy/web 18080:8080 >/dev/null & trap \"kill $!\" EXIT; "+
		"for i in $(seq 50); do curl -sS -o /dev/null 'http://127.0.0.1:18080/blob?size=5M' 2>/dev/null && break; sleep 0.1; done")
	if took := time.Since(start); took < 2*time.Second || took > 8*time.Second {
		t.Errorf("5 MB at 20 Mbit/s took %v, want a little over 2 s", took)
	}
	lab(t, "wire", "laptop", "--mtu", "1280")
	if out, err := exec.Command(program, "exec", "laptop", "--", "ping", "-c1", "-W1", "-Mdo", "-s1300", node1).CombinedOutput(); err == nil || strings.Contains(string(out), "Frag") {
		t.Errorf("a long packet came through, or was not lost without a word:\n%s", out)
	}
	on(t, "laptop", "kubectl get --raw /openapi/v2 | wc -c | grep -q ......")
	if out := on(t, "laptop", "ping -c1 -W1 -q -s1252 "+node1); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("a packet of 1280 bytes is lost:\n%s", out)
	}
	if !reaches("laptop", node1) {
		t.Error("a short packet did not come through")
	}
	lab(t, "wire", "laptop", "--clear")
	if rtt := number(t, on(t, "laptop", "ping -c3 -i0.2 -q "+node1), `= ([\d.]+)/`); rtt > 5 {
		t.Errorf("without the wire still %v ms", rtt)
	}
}

// seen sends a datagram from laptop's port 40000 to node1's port and says what
// source it has there; empty when it does not arrive.
func seen(t *testing.T, port int) string {
	t.Helper()
	cmd := exec.Command(program, "exec", "node1", "--", "timeout", "3", "socat", "-u",
		fmt.Sprintf("UDP-RECVFROM:%d", port), `SYSTEM:echo $SOCAT_PEERADDR\:$SOCAT_PEERPORT`)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) && !strings.Contains(on(t, "node1", "ss -Hlun"), fmt.Sprintf(":%d ", port)) {
		time.Sleep(20 * time.Millisecond)
	}
	on(t, "laptop", fmt.Sprintf("echo x | socat -u - UDP:%s:%d,sourceport=40000,reuseaddr", node1, port))
	_ = cmd.Wait()
	return strings.TrimSpace(out.String())
}

// stun is how the lab's STUN servers for IPv4 see laptop's port 40000.
func stun(t *testing.T) []string {
	t.Helper()
	var seen []string
	for line := range strings.Lines(lab(t, "stun", "laptop", "--port", "40000")) {
		if server, addr, _ := strings.Cut(strings.TrimSpace(line), " "); server[0] != '[' {
			seen = append(seen, addr)
		}
	}
	if len(seen) != 2 {
		t.Fatalf("%d STUN servers see the laptop, want 2: %v", len(seen), seen)
	}
	return seen
}

func TestNAT(t *testing.T) {
	needsLab(t)
	env := lab(t, "env")
	public := regexp.MustCompile(`PODNET_LAB_LAPTOP_PUBLIC4='(.*)'`).FindStringSubmatch(env)[1]
	lab(t, "nat", "laptop")
	if a, b := seen(t, 31001), seen(t, 31002); a != public+":40000" || b != a {
		t.Errorf("behind a plain NAT seen as %q and %q, want %s:40000", a, b, public)
	}
	if s := stun(t); s[0] != public+":40000" || s[1] != s[0] {
		t.Errorf("behind a plain NAT STUN sees %v, want %s:40000", s, public)
	}
	if reaches("node1", public) {
		t.Error("the NAT lets in what nobody asked for")
	}
	lab(t, "nat", "laptop", "--symmetric")
	if a, b := seen(t, 31001), seen(t, 31002); a == b || !strings.HasPrefix(a, public+":") || !strings.HasPrefix(b, public+":") {
		t.Errorf("behind a symmetric NAT seen as %q and %q", a, b)
	}
	if s := stun(t); s[0] == s[1] || !strings.HasPrefix(s[0], public+":") {
		t.Errorf("behind a symmetric NAT STUN sees %v", s)
	}
	on(t, "laptop", "kubectl get --raw /readyz")
	lab(t, "nat", "laptop", "--sequential")
	if s := stun(t); port(t, s[1]) != port(t, s[0])+1 {
		t.Errorf("behind a sequential NAT STUN sees %v", s)
	}
	lab(t, "nat", "laptop", "--off")
	lab(t, "drop-udp", "laptop")
	if got := seen(t, 31001); got != "" {
		t.Errorf("UDP from %s came through", got)
	}
	if _, err := try("stun", "laptop"); err == nil {
		t.Error("STUN came through")
	}
	on(t, "laptop", "kubectl get --raw /readyz && dig +short +tries=1 www.example.test | grep -q .")
	lab(t, "drop-udp", "laptop", "--off")
	if got := seen(t, 31001); got != "10.77.100.2:40000" {
		t.Errorf("without a NAT seen as %q", got)
	}
}

func port(t *testing.T, addr string) int {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return int(a.Port())
}

// TestRebindTakesOtherPorts: every time another one, the same for everybody,
// and connections that were open hang.
func TestRebindTakesOtherPorts(t *testing.T) {
	needsLab(t)
	lab(t, "nat", "laptop")
	ports := map[int]bool{}
	for i := range 3 {
		if i > 0 {
			lab(t, "nat", "laptop", "--rebind")
		}
		s := stun(t)
		if s[0] != s[1] {
			t.Errorf("after %d rebinds the NAT depends on the destination: %v", i, s)
		}
		ports[port(t, s[0])] = true
	}
	if len(ports) != 3 {
		t.Errorf("two rebinds gave ports %v", ports)
	}

	if !talks(t, func() {}) {
		t.Error("without a rebind a connection does not get its answer")
	}
	if talks(t, func() { lab(t, "nat", "laptop", "--rebind") }) {
		t.Error("a connection that the NAT forgot does not hang")
	}
}

// talks opens a connection to the API server, and says whether it is answered
// when it is used after something happened.
func talks(t *testing.T, happens func()) bool {
	t.Helper()
	session := exec.Command(program, "exec", "laptop", "--", "timeout", "3", "sh", "-c",
		"{ sleep 1; echo; } | openssl s_client -quiet -connect "+node1+":6443 >/dev/null 2>&1; echo ended")
	var said bytes.Buffer
	session.Stdout = &said
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) && !strings.Contains(on(t, "laptop", "ss -Htn state established dst "+node1), ":6443") {
		time.Sleep(20 * time.Millisecond)
	}
	happens()
	_ = session.Wait()
	return said.String() != ""
}

// TestHoleCanBePunched: both behind plain NATs, both send, one is heard.
func TestHoleCanBePunched(t *testing.T) {
	needsLab(t)
	lab(t, "nat", "laptop")
	lab(t, "nat", "node1")
	env := lab(t, "env")
	public := func(name string) string {
		return regexp.MustCompile(`PODNET_LAB_` + name + `_PUBLIC4='(.*)'`).FindStringSubmatch(env)[1]
	}
	ear := exec.Command(program, "exec", "node1", "--", "sh", "-c",
		"(echo knock; sleep 3) | timeout 4 socat -T3 - UDP:"+public("LAPTOP")+":40000,sourceport=41000")
	var heard bytes.Buffer
	ear.Stdout = &heard
	if err := ear.Start(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		_, _ = try("exec", "laptop", "--", "sh", "-c", "echo hello | socat -u - UDP:"+public("NODE1")+":41000,sourceport=40000,reuseaddr")
	}
	_ = ear.Wait()
	if !strings.Contains(heard.String(), "hello") {
		t.Error("nothing came through the hole")
	}
}

func TestLaptopRoams(t *testing.T) {
	needsLab(t)
	t.Cleanup(func() { lab(t, "move", "laptop", "0") })
	lab(t, "move", "laptop", "3")
	if got := on(t, "laptop", "ip -4 -br addr show eth0"); !strings.Contains(got, "10.77.106.2/24") {
		t.Errorf("it is at %q", got)
	}
	on(t, "laptop", "kubectl get --raw /readyz")
	lab(t, "move", "laptop", "10.244.0.0/16")
	if got := on(t, "laptop", "ip -4 -br addr show eth0"); !strings.Contains(got, "10.244.0.2/16") || !reaches("laptop", "10.244.0.1") {
		t.Errorf("at home it is at %q", got)
	}
	on(t, "laptop", "kubectl get --raw /readyz")
	lab(t, "link", "laptop", "down")
	if reaches("laptop", node1) {
		t.Error("its link is not down")
	}
	lab(t, "link", "laptop", "up")
	if !reaches("laptop", node1) || !reaches("laptop", "fd77:6c61:6200:1::2") {
		t.Error("it is not back")
	}
}

func TestServerStopsAndStarts(t *testing.T) {
	needsLab(t)
	lab(t, "stop", "apiserver")
	if _, err := try("exec", "laptop", "--", "kubectl", "get", "--raw", "/readyz"); err == nil {
		t.Error("it answers")
	}
	lab(t, "start", "apiserver")
	on(t, "laptop", "kubectl get --raw /readyz")
	lab(t, "status")
}

func number(t *testing.T, in, pattern string) float64 {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(in)
	if m == nil {
		t.Fatalf("no %s in:\n%s", pattern, in)
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
