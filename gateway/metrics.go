package gateway

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"podnet.dev/gateway/usage"
	"podnet.dev/internal/limits"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/version"
)

// collector reads the gateway's counters when somebody scrapes.
type collector struct{ g *Gateway }

// family is one metric with all its labels. Labels have few values: kinds and
// reasons, never addresses; users only in those of userFamilies.
type family struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string
	desc   *prometheus.Desc
}

func (f *family) describe() *family {
	f.desc = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	return f
}

func gauge(name, help string, labels ...string) *family {
	return (&family{name: name, kind: prometheus.GaugeValue, help: help, labels: labels}).describe()
}

func counter(name, help string, labels ...string) *family {
	return (&family{name: name, kind: prometheus.CounterValue, help: help, labels: labels}).describe()
}

var (
	buildInfo       = gauge("podnet_gateway_build_info", "1, with the gateway's version.", "version")
	peersNow        = gauge("podnet_gateway_peers", "Peer objects, by what the gateway makes of them.", "reason")
	peersActive     = gauge("podnet_gateway_peers_active", "Peers with a handshake in the last three minutes.")
	peersByPath     = gauge("podnet_gateway_peers_by_path", "Peers with a handshake in the last three minutes, by the path they use.", "path")
	accessesNow     = gauge("podnet_gateway_accesses", "Access objects, by what the gateway makes of them.", "reason")
	renewals        = counter("podnet_gateway_lease_renewals_total", "Renewals of Peers that were seen.")
	leading         = gauge("podnet_gateway_leader", "1 while this gateway leads.")
	policiesHold    = gauge("podnet_gateway_admission_policies_hold", "1 while the admission policies refuse what they must.")
	frozenNow       = gauge("podnet_gateway_frozen", "1 while the API server is away and leases are frozen.")
	silenceSeconds  = gauge("podnet_gateway_api_silence_seconds", "Time since the API server last answered.")
	lastEvent       = gauge("podnet_gateway_watch_last_event_timestamp_seconds", "When a watch last told of a change.")
	rebuildSeconds  = gauge("podnet_gateway_policy_rebuild_seconds", "How long the last publication of policy took.")
	writeErrors     = counter("podnet_gateway_status_write_errors_total", "Failed writes to the API.")
	flowsNow        = gauge("podnet_gateway_flows", "Open flows.", "proto")
	flowsOpened     = counter("podnet_gateway_flows_opened_total", "Flows opened.", "proto")
	flowsFailed     = counter("podnet_gateway_flows_failed_total", "Flows that did not come about, by why.", "reason")
	flowsOverLimit  = counter("podnet_gateway_flows_over_limit_total", "Flows for which there was no room, by the limit.", "limit")
	flowBytes       = counter("podnet_gateway_flow_bytes_total", "Payload of flows; up is from the peers.", "direction")
	tunnelBytes     = counter("podnet_gateway_wireguard_bytes_total", "Encrypted bytes, by the path they took; up is from the peers.", "path", "direction")
	spoofedPackets  = counter("podnet_gateway_spoofed_packets_total", "Packets that were dropped because their inner source was not their peer's.")
	limitValue      = gauge("podnet_gateway_limit", "What may be had at most; 0 is no limit.", "limit")
	memoryUsed      = gauge("podnet_gateway_memory_used_bytes", "Memory that cannot be given back.")
	memoryBudget    = gauge("podnet_gateway_memory_budget_bytes", "What that may come to; 0 is no limit. At 90 % no flow begins, at 95 % some end.")
	dnsServices     = gauge("podnet_gateway_dns_services", "Services in the DNS index.")
	dnsQuestions    = counter("podnet_gateway_dns_questions_total", "DNS questions that were read.")
	dnsAnswers      = counter("podnet_gateway_dns_answers_total", "DNS answers, by their code.", "rcode")
	dnsRefused      = counter("podnet_gateway_dns_refused_total", "DNS questions that were not worked on: dropped for want of room, or malformed.", "reason")
	dnsAnswerTime   = gauge("podnet_gateway_dns_answer_seconds", "How long DNS answers took to make.") // a histogram: see newMeters
	steeringRules   = gauge("podnet_steering_rules", "SteeringRule objects, by what the gateway makes of them.", "reason")
	steeringAgents  = gauge("podnet_steering_agents", "Agents that are connected to this gateway.")
	steeringDecided = counter("podnet_steering_requests_total", "Requests and connections at steered ports, as agents count them, by what became of them.", "outcome")
	exposuresNow    = gauge("podnet_exposures", "Exposure objects, by what the gateway makes of them.", "reason")

	// userFamilies are there only where the administrator wants users' names in metrics.
	userPeers     = gauge("podnet_gateway_user_peers", "Devices of a user that are admitted.", "user")
	userFlows     = gauge("podnet_gateway_user_flows", "Open flows of a user.", "user", "proto")
	userBytes     = counter("podnet_gateway_user_bytes_total", "Encrypted bytes of a user, by the path they took.", "user", "path", "direction")
	userOverLimit = counter("podnet_gateway_user_flows_over_limit_total", "Flows of a user for which there was no room, by the limit.", "user", "limit")

	allFamilies = []*family{buildInfo, peersNow, peersActive, peersByPath, accessesNow, renewals, leading, policiesHold, frozenNow, silenceSeconds, lastEvent,
		rebuildSeconds, writeErrors, flowsNow, flowsOpened, flowsFailed, flowsOverLimit, flowBytes, tunnelBytes, spoofedPackets, limitValue, memoryUsed, memoryBudget,
		dnsServices, dnsQuestions, dnsAnswers, dnsRefused, steeringRules, steeringAgents, steeringDecided, exposuresNow}
	userFamilies = []*family{userPeers, userFlows, userBytes, userOverLimit}
)

// meters are the metrics that are counted where things happen.
type meters struct{ answers prometheus.Histogram }

func newMeters() meters {
	return meters{answers: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: dnsAnswerTime.name, Help: dnsAnswerTime.help,
		// From what the index takes to what a client waits for at most.
		Buckets: []float64{.00005, .0001, .0005, .001, .005, .01, .02, .05, .1, .5, 1, 5},
	})}
}

// answered takes note of how long a DNS answer took.
func (m meters) answered(took time.Duration) { m.answers.Observe(took.Seconds()) }

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families() {
		ch <- f.desc
	}
}

func (c *collector) families() []*family {
	if c.g.o.UserMetrics {
		return slices.Concat(allFamilies, userFamilies)
	}
	return allFamilies
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	w := samples(ch)
	c.objects(w)
	c.control(w)
	c.flows(w)
	c.names(w)
	if peers, err := c.g.ground.Tunnel.Stats(); err == nil { // or the tunnel is closing
		c.tunnel(w, peers)
	}
	if c.g.o.UserMetrics {
		c.users(w)
	}
}

// samples is where values go.
type samples chan<- prometheus.Metric

func (ch samples) put(f *family, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (ch samples) each(f *family, counts map[string]int) {
	for reason, n := range counts {
		ch.put(f, float64(n), reason)
	}
}

func (c *collector) objects(w samples) {
	if n := c.g.admit.counts.Load(); n != nil {
		w.each(peersNow, n.peers)
		w.each(accessesNow, n.accesses)
		w.each(steeringRules, n.rules)
		w.each(exposuresNow, n.exposures)
	}
	s := c.g.admit.steer
	w.put(steeringAgents, float64(s.Connected()))
	t := s.Server().Totals()
	w.put(steeringDecided, float64(t.Matched-t.Failed), "taken")
	w.put(steeringDecided, float64(t.Failed), "failed")
	w.put(steeringDecided, float64(t.Passed), "passed")
}

func (c *collector) control(w samples) {
	g := c.g
	w.put(buildInfo, 1, version.Version)
	w.put(leading, one(g.leader.leads.Load()))
	w.put(policiesHold, one(g.guard.Holds()))
	w.put(frozenNow, one(g.guard.Away()))
	w.put(silenceSeconds, g.guard.Silence().Seconds())
	if at := g.world.Heard(); at != 0 {
		w.put(lastEvent, float64(at))
	}
	w.put(renewals, float64(g.world.Renewals()))
	w.put(rebuildSeconds, time.Duration(g.rebuild.Load()).Seconds())
	w.put(writeErrors, float64(g.admit.write.Errors()))
	for _, m := range limits.All {
		w.put(limitValue, float64(m.Value(g.o.Limits)), m.Name)
	}
	r := g.memory.Read()
	w.put(memoryUsed, float64(r.Used))
	w.put(memoryBudget, float64(r.Budget))
}

func (c *collector) flows(w samples) {
	f := c.g.forward.Stats()
	for _, p := range []struct {
		proto string
		open  int
		total uint64
	}{{"tcp", f.OpenTCP, f.TotalTCP}, {"udp", f.OpenUDP, f.TotalUDP}, {"icmp", f.OpenICMP, f.TotalICMP}} {
		w.put(flowsNow, float64(p.open), p.proto)
		w.put(flowsOpened, float64(p.total), p.proto)
	}
	for reason, n := range map[string]uint64{"refused": f.Refused, "denied": f.Denied, "unreachable": f.Failed, "limit": f.OverLimit} {
		w.put(flowsFailed, float64(n), reason)
	}
	for name, n := range usage.ByLimit(f.RefusedFor) {
		w.put(flowsOverLimit, float64(n), name)
	}
	w.put(flowBytes, float64(f.BytesUp), "up")
	w.put(flowBytes, float64(f.BytesDown), "down")
}

func (c *collector) names(w samples) {
	d := c.g.dns.Stats()
	w.put(dnsServices, float64(c.g.zone.Services()))
	w.put(dnsQuestions, float64(d.Queries))
	for rcode, n := range d.Rcodes {
		w.put(dnsAnswers, float64(n), rcode)
	}
	w.put(dnsRefused, float64(d.Dropped), "dropped")
	w.put(dnsRefused, float64(d.Malformed), "malformed")
}

func (c *collector) tunnel(w samples, peers []tunnel.PeerStats) {
	active, byPath := 0, map[string]int{string(transport.UDP): 0, string(transport.APIServer): 0}
	for _, p := range peers {
		if time.Since(p.LastHandshake) < 3*time.Minute {
			active++
			byPath[string(transport.EndpointKind(p.Endpoint))]++
		}
	}
	w.put(spoofedPackets, float64(c.g.ground.Tunnel.Spoofed()))
	w.put(peersActive, float64(active))
	w.each(peersByPath, byPath)
	c.g.traffic.Add(peers)
	paths := map[usage.Route]uint64{}
	for r, n := range c.g.traffic.Totals() {
		paths[usage.Route{Path: r.Path, Up: r.Up}] += n
	}
	for r, n := range paths {
		w.put(tunnelBytes, float64(n), r.Path, r.Direction())
	}
}

func (c *collector) users(w samples) {
	for user, n := range c.g.traffic.Devices() {
		w.put(userPeers, float64(n), user)
	}
	for r, n := range c.g.traffic.Totals() {
		if r.User != "" {
			w.put(userBytes, float64(n), r.User, r.Path, r.Direction())
		}
	}
	for _, u := range c.g.forward.Usage() {
		w.put(userFlows, float64(u.Connections), u.Owner, "tcp")
		w.put(userFlows, float64(u.Datagrams), u.Owner, "udp")
		by := usage.ByLimit(u.Refused)
		for _, name := range slices.Sorted(maps.Keys(by)) {
			if by[name] > 0 {
				w.put(userOverLimit, float64(by[name]), u.Owner, name)
			}
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
