package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// goals are those of the design, as ratios to upstream wireguard-go TUN to
// TUN in the same run, or as absolute limits where it has none.
var goals = map[string]map[string]string{
	"pass": {"up": ">= 1.9", "down": ">= 1.2", "cpu up": "<= 0.75", "cpu down": "<= 0.9"},
	"seg":  {"up": ">= 3", "down": ">= 2.4", "cpu up": "<= 0.35", "cpu down": "<= 0.6"},
}

// report prints one mode. Results that are missing are dashes.
func report(out io.Writer, mode string, results map[string]*result) {
	g := goals[mode]
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	get := func(system string) *result {
		if r := results[system]; r != nil {
			return r
		}
		return &result{}
	}
	u, c, p := get(upstream), get(plain), get(podnet)
	fmt.Fprintf(t, "\nmode %s\t%s\t%s\t%s\tratio\tgoal\t\n", mode, upstream, plain, podnet)
	row := func(name, format, goal string, of func(*result) float64) {
		ratio := "-"
		if of(u) > 0 && of(p) > 0 {
			ratio = fmt.Sprintf("%.2f", of(p)/of(u))
		}
		cell := func(r *result) string {
			if *r == (result{}) {
				return "-"
			}
			return fmt.Sprintf(format, of(r))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", name, cell(u), cell(c), cell(p), ratio, goal)
	}
	row("TCP up, 1 flow, Gbit/s", "%.2f", g["up"], func(r *result) float64 { return r.up1.gbps })
	row("TCP down, 1 flow, Gbit/s", "%.2f", g["down"], func(r *result) float64 { return r.down1.gbps })
	row("TCP up, 8 flows, Gbit/s", "%.2f", g["up"], func(r *result) float64 { return r.up8.gbps })
	row("TCP down, 8 flows, Gbit/s", "%.2f", g["down"], func(r *result) float64 { return r.down8.gbps })
	row("gateway CPU up, s/Gbit", "%.3f", g["cpu up"], func(r *result) float64 { return r.up8.cpu })
	row("gateway CPU down, s/Gbit", "%.3f", g["cpu down"], func(r *result) float64 { return r.down8.cpu })
	row("round trip p50, us", "%.0f", "<= 1.4", func(r *result) float64 { return r.idle.P50 })
	row("round trip p99, us", "%.0f", "<= 1.4", func(r *result) float64 { return r.idle.P99 })
	row("round trip p99, 8 flows up, ms", "%.1f", "10 ms", func(r *result) float64 { return r.loadUp.P99 / 1000 })
	row("round trip p99, 8 flows down, ms", "%.1f", "10 ms", func(r *result) float64 { return r.loadDown.P99 / 1000 })
	row("connects/s, 16 at a time", "%.0f", ">= 0.8", func(r *result) float64 { return r.connects })
	row("connects failed", "%.0f", "0", func(r *result) float64 { return float64(r.connectFailures) })
	row("UDP 1200 B up, packets/s, < 1 % lost", "%.0f", ">= 1", func(r *result) float64 { return r.udpUp })
	row("UDP 1200 B down, packets/s, < 1 % lost", "%.0f", ">= 1", func(r *result) float64 { return r.udpDown })
	row("gateway memory idle, MB", "%.0f", "16 MB", func(r *result) float64 { return r.rssIdle })
	row("gateway memory peak, MB", "%.0f", "80 MB", func(r *result) float64 { return r.rssPeak })
	row("gateway memory of an idle flow, KB", "%.1f", "12 KB", func(r *result) float64 { return r.flowKB })
}
