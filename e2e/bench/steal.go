package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

const (
	podGateway    = "10.96.0.1:51820"
	laptopGateway = "192.168.77.1:51820"
)

// stolen are the loads of steal: connections that stay, and bytes of an answer.
var stolen = []struct{ connections, bytes int }{{1, 2}, {64, 2}, {64, 10_000}, {4, 500_000}}

// steal measures requests that an agent steers to a laptop: how many, and what each
// costs every process on the way.
func steal(ctx context.Context, o options, mode string, out io.Writer) error {
	fmt.Fprintf(os.Stderr, "bench: steal, mode %s ...\n", mode)
	w, err := namespaces(ctx, mode)
	if err != nil {
		return err
	}
	defer w.destroy()
	agent, others, err := w.steerable(ctx, o)
	if err != nil {
		return err
	}
	processes := append([]process{agent}, others[:len(others)-1]...)

	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	fmt.Fprintf(t, "\nmode %s, stolen\trequests/s\tp50\tp99\t", mode)
	for _, p := range processes {
		fmt.Fprintf(t, "%s us\t", p.name)
	}
	fmt.Fprint(t, "datagrams at pod, laptop\t\n")
	for _, load := range stolen {
		args := []string{"-H", "x-user: alice", fmt.Sprintf("http://%s/?%d", appAt(appPort), load.bytes)}
		if _, err := w.wrk(ctx, load.connections, time.Second, args...); err != nil { // windows and caches fill
			return err
		}
		var before []float64
		for _, p := range processes {
			before = append(before, cpuOf(p.id))
		}
		pod, laptop := datagrams(ctx, w.pod), datagrams(ctx, w.laptop)
		r, err := w.wrk(ctx, load.connections, max(o.per, time.Second), args...)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%d connections, %d bytes\t%s\t%s\t%s\t", load.connections, load.bytes, r.rate, r.p50, r.p99)
		for i, p := range processes {
			fmt.Fprintf(t, "%.0f\t", (cpuOf(p.id)-before[i])/r.requests*1e6)
		}
		fmt.Fprintf(t, "%.1f, %.1f\t\n", (datagrams(ctx, w.pod)-pod)/r.requests, (datagrams(ctx, w.laptop)-laptop)/r.requests)
	}
	return nil
}

// steerable starts everything, and returns when requests reach the laptop. The
// others are the gateway, the laptop, its web server and the pod's own program.
func (w *world) steerable(ctx context.Context, o options) (agent process, others []process, err error) {
	parent, others, err := w.startSteal(ctx, o)
	if err != nil {
		return process{}, nil, err
	}
	if err := w.steered(ctx); err != nil {
		return process{}, nil, err
	}
	worker, err := childOf(parent)
	return process{"agent", worker}, others, err
}

func appAt(port int) string { return fmt.Sprintf("%s:%d", podIP, port) }

// process is one on the way of a steered request.
type process struct {
	name string
	id   int
}

// startSteal starts everything. It returns the agent's process, whose child does
// the work, and the others.
func (w *world) startSteal(ctx context.Context, o options) (agent int, others []process, err error) {
	laptopKey, err := key.NewPrivate()
	if err != nil {
		return 0, nil, err
	}
	gatewayKey, err := key.NewPrivate()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", w.pod, "setpriv", "--regid=4242", "--clear-groups", o.agent,
		"--pod-uid", stealUID, "--gateway", fmt.Sprintf("%s@%s", gatewayKey.Public(), podGateway))
	said, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if _, err := w.start(cmd, ""); err != nil {
		return 0, nil, err
	}
	var hello control.Hello
	if err := control.NewReader(bufio.NewReader(said)).Read(&hello); err != nil || hello.Error != "" {
		return 0, nil, errors.Join(fmt.Errorf("the agent does not begin: %s", hello.Error), err)
	}
	told, err := json.Marshal(ends{base64Key(laptopKey), base64Key(gatewayKey), hello.PublicKey})
	if err != nil {
		return 0, nil, err
	}
	for _, p := range []struct {
		name, ns string
		args     []string
		input    string
	}{
		{"gateway", w.gateway, []string{"steal-gateway"}, string(told)},
		{"laptop", w.laptop, []string{"steal-laptop"}, string(told)},
		{"web server", w.laptop, []string{"steal-web", "laptop", webAddr}, ""},
		{"app", w.pod, []string{"steal-web", "app", appAt(appPort), appAt(freePort)}, ""},
	} {
		c, err := w.start(w.inside(ctx, p.ns, append([]string{"worker"}, p.args...)...), p.input)
		if err != nil {
			return 0, nil, err
		}
		others = append(others, process{p.name, c.Process.Pid})
	}
	return cmd.Process.Pid, others, nil
}

// steered waits until requests reach the laptop.
func (w *world) steered(ctx context.Context) error {
	var last []byte
	for range 100 {
		cmd := exec.CommandContext(ctx, "ip", "netns", "exec", w.gateway, "curl", "-sS", "--max-time", "1", "-H", "x-user: alice",
			fmt.Sprintf("http://%s/", appAt(appPort)))
		if last, _ = cmd.CombinedOutput(); string(last) == "laptop" {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the laptop gets no requests: %q", last)
}

// wrkResult is what wrk found out.
type wrkResult struct {
	requests float64
	rate     string // in its own words
	p50, p99 time.Duration
	cpu      float64 // seconds it has computed
}

var wrkSays = map[string]*regexp.Regexp{
	"requests": regexp.MustCompile(`(\d+) requests in`),
	"rate":     regexp.MustCompile(`Requests/sec:\s+(\S+)`),
	"p50":      regexp.MustCompile(`50%\s+(\d\S+)\n`),
	"p99":      regexp.MustCompile(`99%\s+(\d\S+)\n`),
}

// wrk asks the pod; args are its URL and what else to say.
func (w *world) wrk(ctx context.Context, connections int, d time.Duration, args ...string) (wrkResult, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", w.gateway, "wrk", "-t1", fmt.Sprintf("-c%d", connections),
		fmt.Sprintf("-d%.0fs", d.Seconds()), "--latency"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "Non-2xx") {
		return wrkResult{}, errors.Join(fmt.Errorf("wrk: %s", out), err)
	}
	said := map[string]string{}
	for name, re := range wrkSays {
		if m := re.FindSubmatch(out); m != nil {
			said[name] = string(m[1])
		}
	}
	n, err := strconv.ParseFloat(said["requests"], 64)
	if err != nil || n == 0 {
		return wrkResult{}, fmt.Errorf("wrk got no answer: %s", out)
	}
	p50, err := time.ParseDuration(said["p50"])
	p99, err99 := time.ParseDuration(said["p99"])
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return wrkResult{n, said["rate"], p50, p99, used.Seconds()}, errors.Join(err, err99)
}

// cpuOf is how many seconds the threads that a process has now have computed.
func cpuOf(id int) (seconds float64) {
	dir := fmt.Sprintf("/proc/%d/task/", id)
	tasks, _ := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/schedstat")
		if f := strings.Fields(string(b)); len(f) > 0 {
			ns, _ := strconv.ParseFloat(f[0], 64)
			seconds += ns / 1e9
		}
	}
	return seconds
}

// datagrams is how many a namespace's sockets have sent and received, those that
// went together once.
func datagrams(ctx context.Context, ns string) (n float64) {
	out, _ := exec.CommandContext(ctx, "ip", "netns", "exec", ns, "cat", "/proc/net/snmp").Output()
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 4 && f[0] == "Udp:" {
			in, _ := strconv.ParseFloat(f[1], 64) // 0 in the line of names
			sent, _ := strconv.ParseFloat(f[4], 64)
			n += in + sent
		}
	}
	return n
}

// childOf is a process's child.
func childOf(id int) (int, error) {
	dir := fmt.Sprintf("/proc/%d/task/", id)
	tasks, err := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/children")
		if f := strings.Fields(string(b)); len(f) > 0 {
			return strconv.Atoi(f[0])
		}
	}
	return 0, errors.Join(fmt.Errorf("process %d has no child", id), err)
}
