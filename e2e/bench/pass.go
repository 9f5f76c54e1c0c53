package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

const (
	// passRounds are as many as they are short: the two that are compared run within
	// seconds of each other, and what disturbs one of them is not in the median.
	passRounds = 9
	passRound  = time.Second
)

// passed are the loads of pass.
var passed = []struct{ connections, bytes int }{{1, 2}, {64, 2}, {64, 10_000}}

// pass measures requests that no rule wants beside those to a port of the same
// program that has no agent: medians of rounds that take turns.
//
// Of a machine that others use too, the rates tell little, and what a request costs
// all processes together, wrk's share included, tells what the rates would be: all
// of them compute as much as they can.
func pass(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintln(os.Stderr, "bench: pass ...")
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
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	fmt.Fprint(t, "\npassed\tagent us\tall us\tno agent\tof no agent\trequests/s\tno agent\tof no agent\tp99\tno agent\t\n")
	for _, load := range passed {
		direct, steered := cost{}, cost{}
		for range passRounds {
			for port, cost := range map[int]cost{freePort: direct, appPort: steered} {
				before := cpuOf(agent.id)
				all := cpuOf(app.id) + before
				r, err := w.wrk(ctx, load.connections, passRound, fmt.Sprintf("http://%s/?%d", appAt(port), load.bytes))
				if err != nil {
					return err
				}
				cost.add("agent", (cpuOf(agent.id)-before)/r.requests)
				cost.add("all", (r.cpu+cpuOf(app.id)+cpuOf(agent.id)-all)/r.requests)
				cost.add("rate", r.requests/passRound.Seconds())
				cost.add("p99", r.p99.Seconds())
			}
		}
		fmt.Fprintf(t, "%d connections, %d bytes\t%.1f\t%.1f\t%.1f\t%.0f %%\t%.0f\t%.0f\t%.0f %%\t%.2f ms\t%.2f ms\t\n",
			load.connections, load.bytes, 1e6*steered.of("agent"),
			1e6*steered.of("all"), 1e6*direct.of("all"), 100*direct.of("all")/steered.of("all"),
			steered.of("rate"), direct.of("rate"), 100*steered.of("rate")/direct.of("rate"),
			1e3*steered.of("p99"), 1e3*direct.of("p99"))
	}
	return nil
}

// cost is what was measured, by name, in each round.
type cost map[string][]float64

func (c cost) add(name string, v float64) { c[name] = append(c[name], v) }

// of is a median.
func (c cost) of(name string) float64 {
	slices.Sort(c[name])
	return c[name][len(c[name])/2]
}
