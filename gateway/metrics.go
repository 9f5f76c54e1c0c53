package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"podnet.dev/internal/transport"
)

// collector reads the gateway's counters when somebody scrapes.
type collector struct{ g *Gateway }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("podnet_gateway_"+name, help, labels, nil)
}

var (
	peersDesc     = desc("peers", "Peer objects, by what the gateway makes of them.", "reason")
	accessesDesc  = desc("accesses", "Access objects, by what the gateway makes of them.", "reason")
	leaderDesc    = desc("leader", "1 while this gateway leads.")
	policyDesc    = desc("admission_policies_hold", "1 while the admission policies refuse what they must.")
	frozenDesc    = desc("frozen", "1 while the API server is away and leases are frozen.")
	silenceDesc   = desc("api_silence_seconds", "Time since the API server last answered.")
	rebuildDesc   = desc("policy_rebuild_seconds", "How long the last publication of policy took.")
	writesDesc    = desc("status_write_errors_total", "Failed writes to the API.")
	servicesDesc  = desc("dns_services", "Services in the DNS index.")
	flowsDesc     = desc("flows", "Open flows.", "proto")
	openedDesc    = desc("flows_opened_total", "Flows opened.", "proto")
	failedDesc    = desc("flows_failed_total", "Flows that did not come about, by why.", "reason")
	bytesDesc     = desc("flow_bytes_total", "Payload of flows; up is from the peers.", "direction")
	wireBytesDesc = desc("wireguard_bytes", "Encrypted bytes of the peers that are admitted now.", "direction")
	pathsDesc     = desc("peers_by_path", "Peers with a handshake in the last three minutes, by the path they use.", "path")
	rulesDesc     = prometheus.NewDesc("podnet_steering_rules", "SteeringRule objects, by what the gateway makes of them.", []string{"reason"}, nil)
	agentsDesc    = prometheus.NewDesc("podnet_steering_agents", "Agents that are connected to this gateway.", nil, nil)
	exposuresDesc = prometheus.NewDesc("podnet_exposures", "Exposure objects, by what the gateway makes of them.", []string{"reason"}, nil)
	handshakeDesc = desc("peers_active", "Peers with a handshake in the last three minutes.")
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{peersDesc, accessesDesc, leaderDesc, policyDesc, frozenDesc, silenceDesc, rebuildDesc, writesDesc,
		servicesDesc, flowsDesc, openedDesc, failedDesc, bytesDesc, wireBytesDesc, handshakeDesc, pathsDesc, rulesDesc, agentsDesc, exposuresDesc} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	g := c.g
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	if n := g.admit.counts.Load(); n != nil {
		for reason, v := range n.peers {
			gauge(peersDesc, float64(v), reason)
		}
		for reason, v := range n.accesses {
			gauge(accessesDesc, float64(v), reason)
		}
		for reason, v := range n.rules {
			gauge(rulesDesc, float64(v), reason)
		}
		for reason, v := range n.exposures {
			gauge(exposuresDesc, float64(v), reason)
		}
	}
	gauge(agentsDesc, float64(g.admit.steer.connected()))
	gauge(leaderDesc, one(g.leader.leads.Load()))
	gauge(policyDesc, one(g.guard.holds.Load()))
	gauge(frozenDesc, one(g.guard.away.Load()))
	gauge(silenceDesc, g.guard.silence().Seconds())
	gauge(rebuildDesc, time.Duration(g.rebuild.Load()).Seconds())
	counter(writesDesc, g.admit.write.errors.Load())
	gauge(servicesDesc, float64(g.zone.Services()))

	f := g.forward.Stats()
	gauge(flowsDesc, float64(f.OpenTCP), "tcp")
	gauge(flowsDesc, float64(f.OpenUDP), "udp")
	gauge(flowsDesc, float64(f.OpenICMP), "icmp")
	counter(openedDesc, f.TotalTCP, "tcp")
	counter(openedDesc, f.TotalUDP, "udp")
	counter(openedDesc, f.TotalICMP, "icmp")
	counter(failedDesc, f.Refused, "refused")
	counter(failedDesc, f.Denied, "denied")
	counter(failedDesc, f.Failed, "unreachable")
	counter(failedDesc, f.OverLimit, "limit")
	counter(bytesDesc, f.BytesUp, "up")
	counter(bytesDesc, f.BytesDown, "down")

	peers, err := g.tunnel.Stats()
	if err != nil {
		return // the tunnel is closing
	}
	var up, down uint64
	active, byPath := 0, map[transport.Kind]int{transport.UDP: 0, transport.APIServer: 0}
	for _, p := range peers {
		up, down = up+p.RxBytes, down+p.TxBytes
		if time.Since(p.LastHandshake) < 3*time.Minute {
			active++
			byPath[transport.EndpointKind(p.Endpoint)]++
		}
	}
	// Peers that are gone take their bytes along, so these are no counters.
	gauge(wireBytesDesc, float64(up), "up")
	gauge(wireBytesDesc, float64(down), "down")
	gauge(handshakeDesc, float64(active))
	for kind, n := range byPath {
		gauge(pathsDesc, float64(n), string(kind))
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
