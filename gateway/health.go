package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"podnet.dev/gateway/enrol"
)

// stuckAfter is how long the admitter may not look before the gateway counts
// as stuck and kubelet restarts it.
const stuckAfter = time.Minute

func (g *Gateway) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{g}, g.meters.answers)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, g.sick(), nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, g.unready(), g.notes()) })
	return mux
}

func answer(w http.ResponseWriter, problems, notes []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		problems = []string{"ok"}
	}
	_, _ = fmt.Fprintln(w, strings.Join(append(problems, notes...), "\n"))
}

// sick lists what only a restart can mend.
func (g *Gateway) sick() []string {
	last := g.admit.heartbeat.Load()
	if last != 0 && time.Since(time.Unix(last, 0)) > stuckAfter {
		return []string{"the gateway has stopped looking at its peers"}
	}
	return nil
}

// unready lists why a peer could not enrol here now. A control plane that is
// away later, or a policy that vanishes, does not make a gateway unready: its
// peers go on.
func (g *Gateway) unready() []string {
	all := g.sick()
	for _, c := range []struct {
		ok   bool
		what string
	}{
		{!g.stopping.Load(), "the gateway is stopping"},
		{g.synced.Load() && g.published.Load(), "the cluster is not known yet: waiting for the API server"},
		{g.zone.Synced(), "DNS is not filled yet"},
		{g.guard.EverHeld(), "the admission policies have not been seen to hold: see the log"},
	} {
		if !c.ok {
			all = append(all, c.what)
		}
	}
	return all
}

// notes lists what a reader of /readyz should know though the gateway is ready.
func (g *Gateway) notes() []string {
	var all []string
	if g.guard.Away() {
		all = append(all, fmt.Sprintf("the API server has been silent for %v: leases are frozen, each for at most %v after its last renewal",
			g.guard.Silence().Round(time.Second), enrol.FrozenLimit))
	}
	if g.guard.EverHeld() && !g.guard.Holds() {
		all = append(all, "the admission policies do not hold: nobody new is admitted, no lease is renewed")
	}
	return all
}
