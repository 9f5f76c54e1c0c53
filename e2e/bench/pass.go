package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

const (
	// passRounds are as many as they are short: what is compared runs within seconds
	// of each other, and what disturbs one of them is not in the median.
	passRounds = 7
	passRound  = time.Second
	// Ports of the yardstick, which passes on what comes byte by byte, or request by
	// request.
	bytesPort    = 8090
	requestsPort = 8091
)

// passed are the loads of pass.
var passed = []struct{ connections, bytes int }{{1, 2}, {64, 2}, {64, 10_000}}

// way is one on which requests reach the app.
type way struct {
	name  string
	port  int
	proxy process // that passes them on; the zero process: none does
}

// pass measures requests that no rule wants beside those to a port of the same
// program that has no agent, and to one behind haproxy, if that is installed: as
// programs of one computer, and as containers of one pod. It prints medians of
// rounds that take turns.
//
// Of a machine that others use too, the rates tell little, and what a request costs
// all processes together, wrk's share included, tells what the rates would be: all
// of them compute as much as they can.
func pass(ctx context.Context, o options, out io.Writer) error {
	w, err := namespaces(ctx, "pass")
	if err != nil {
		return err
	}
	defer w.destroy()
	agent, others, err := w.steerable(ctx, o)
	if err != nil {
		return err
	}
	app := others[len(others)-1]
	ways, pod := []way{{name: "no agent", port: freePort}}, []process{app, agent}
	if relay, err := w.haproxy(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no yardstick, as haproxy does not run:", err)
	} else {
		ways = append(ways, way{"haproxy, bytes", bytesPort, relay}, way{"haproxy, requests", requestsPort, relay})
		pod = append(pod, relay)
	}
	ways = append(ways, way{"agent", appPort, agent})

	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	if err := w.passOn(ctx, t, "programs", ways, app); err != nil {
		return err
	}
	c, err := contain(pod...)
	if err != nil {
		return fmt.Errorf("cgroups as a pod's: %w", err)
	}
	defer c.release()
	return w.passOn(ctx, t, "containers", ways, app)
}

// passOn measures all loads on all ways, and prints them.
func (w *world) passOn(ctx context.Context, out io.Writer, title string, ways []way, app process) error {
	fmt.Fprintf(os.Stderr, "bench: pass, %s ...\n", title)
	fmt.Fprintf(out, "\npassed, %s\tproxy us\tall us\tof no agent\trequests/s\tof no agent\tp50 ms\tp99 ms\t\n", title)
	for _, load := range passed {
		costs := make([]cost, len(ways))
		for range passRounds {
			for i, way := range ways {
				if costs[i] == nil {
					costs[i] = cost{}
				}
				if err := w.passRound(ctx, way, app, load.connections, load.bytes, costs[i]); err != nil {
					return err
				}
			}
		}
		for i, way := range ways {
			c, direct := costs[i], costs[0]
			fmt.Fprintf(out, "%d connections, %d bytes, %s\t%.1f\t%.1f\t%.0f %%\t%.0f\t%.0f %%\t%.2f\t%.2f\t\n", load.connections, load.bytes, way.name,
				1e6*c.of("proxy"), 1e6*c.of("all"), 100*direct.of("all")/c.of("all"),
				c.of("rate"), 100*c.of("rate")/direct.of("rate"), 1e3*c.of("p50"), 1e3*c.of("p99"))
		}
	}
	return nil
}

// passRound adds what a round on one way costs.
func (w *world) passRound(ctx context.Context, way way, app process, connections, bytes int, c cost) error {
	before := cpuOf(way.proxy.id)
	all := cpuOf(app.id) + before
	r, err := w.wrk(ctx, connections, passRound, fmt.Sprintf("http://%s/?%d", appAt(way.port), bytes))
	if err != nil {
		return err
	}
	after := cpuOf(way.proxy.id)
	c.add("proxy", (after-before)/r.requests)
	c.add("all", (r.cpu+cpuOf(app.id)+after-all)/r.requests)
	c.add("rate", r.requests/passRound.Seconds())
	c.add("p50", r.p50.Seconds())
	c.add("p99", r.p99.Seconds())
	return nil
}

// haproxyConfig has the yardstick do as the agent does: as many threads, and a
// connection to the app for each client's.
const haproxyConfig = `
global
  nbthread 1
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse never
listen bytes
  mode tcp
  bind %[1]s
  server app %[3]s
listen requests
  mode http
  bind %[2]s
  server app %[3]s
`

// haproxy starts the yardstick beside the app.
func (w *world) haproxy(ctx context.Context) (process, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return process{}, err
	}
	file := filepath.Join(w.dir, "haproxy.cfg")
	config := fmt.Sprintf(haproxyConfig, appAt(bytesPort), appAt(requestsPort), appAt(freePort))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return process{}, err
	}
	cmd, err := w.start(exec.CommandContext(ctx, "ip", "netns", "exec", w.pod, path, "-q", "-f", file), "")
	if err != nil {
		return process{}, err
	}
	for range 100 {
		if err = exec.CommandContext(ctx, "ip", "netns", "exec", w.pod, "curl", "-sf", "-o", "/dev/null", "http://"+appAt(requestsPort)).Run(); err == nil {
			return process{"haproxy", cmd.Process.Pid}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return process{}, err
}

// cost is what was measured, by name, in each round.
type cost map[string][]float64

func (c cost) add(name string, v float64) { c[name] = append(c[name], v) }

// of is a median.
func (c cost) of(name string) float64 {
	slices.Sort(c[name])
	return c[name][len(c[name])/2]
}
