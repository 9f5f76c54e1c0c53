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

// report prints one mode. Either result may be missing.
func report(out io.Writer, mode string, p, u *result) {
	g := goals[mode]
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	if p == nil {
		p = &result{}
	}
	if u == nil {
		u = &result{}
	}
	fmt.Fprintf(t, "\nmode %s\tpodnet\twireguard-go\tratio\tgoal\t\n", mode)
	ratio := func(name string, a, b float64, format, goal string) {
		r := "-"
		if a > 0 && b > 0 {
			r = fmt.Sprintf("%.2f", a/b)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", name, figure(format, a), figure(format, b), r, goal)
	}
	ratio("TCP up, 1 flow, Gbit/s", p.up1.gbps, u.up1.gbps, "%.2f", g["up"])
	ratio("TCP down, 1 flow, Gbit/s", p.down1.gbps, u.down1.gbps, "%.2f", g["down"])
	ratio("TCP up, 8 flows, Gbit/s", p.up8.gbps, u.up8.gbps, "%.2f", g["up"])
	ratio("TCP down, 8 flows, Gbit/s", p.down8.gbps, u.down8.gbps, "%.2f", g["down"])
	ratio("gateway CPU up, s/Gbit", p.up8.cpu, u.up8.cpu, "%.3f", g["cpu up"])
	ratio("gateway CPU down, s/Gbit", p.down8.cpu, u.down8.cpu, "%.3f", g["cpu down"])
	ratio("round trip p50, us", p.idle.P50, u.idle.P50, "%.0f", "<= 1.4")
	ratio("round trip p99, us", p.idle.P99, u.idle.P99, "%.0f", "<= 1.4")
	ratio("round trip p99, 8 flows up, ms", p.loadUp.P99/1000, u.loadUp.P99/1000, "%.1f", "10 ms")
	ratio("round trip p99, 8 flows down, ms", p.loadDown.P99/1000, u.loadDown.P99/1000, "%.1f", "10 ms")
	ratio("connects/s, 16 at a time", p.connects, u.connects, "%.0f", ">= 0.8")
	ratio("connects failed", float64(p.connectFailures), float64(u.connectFailures), "%.0f", "0")
	ratio("UDP 1200 B up, packets/s, < 1 % lost", p.udpUp, u.udpUp, "%.0f", ">= 1")
	ratio("UDP 1200 B down, packets/s, < 1 % lost", p.udpDown, u.udpDown, "%.0f", ">= 1")
	ratio("memory idle, MB", p.rssIdle, u.rssIdle, "%.0f", "16 MB")
	ratio("memory peak, MB", p.rssPeak, u.rssPeak, "%.0f", "80 MB")
	ratio("memory of an idle flow, KB", p.flowKB, 0, "%.1f", "12 KB")
}

func figure(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}
