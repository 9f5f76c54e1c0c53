// Package doctor looks at everything that a session stands on, from the
// kubeconfig to the host's resolver, and says for each what it found and what
// to do about it. What is found is judged by pure functions; thin ones gather
// it. It changes nothing on this machine, and in the cluster only what a
// connect would: where nothing is connected it enrols for a few seconds.
package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Cluster is what an examination needs of a cluster; *cluster.Client is one.
type Cluster interface {
	Check(ctx context.Context) error
	Whoami() cluster.Identity
	Remotes() []netip.Addr
	Reach(ctx context.Context) cluster.Reach
	Installed(ctx context.Context, namespace string) error
	Needs(ctx context.Context, gateway string, namespaces []string) []cluster.Need
	GatewayPod(ctx context.Context, namespace string) (cluster.GatewayPod, error)
	PodSecurity(ctx context.Context, namespace string) (string, error)

	CreatePeer(ctx context.Context, namespace, name string, spec v1alpha1.PeerSpec) error
	SetCandidates(ctx context.Context, namespace, name string, candidates []string) error
	DeletePeer(ctx context.Context, namespace, name string) error
	Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error)
	DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error)
}

// Config of an examination.
type Config struct {
	Request     localapi.DoctorRequest
	OpenCluster func(localapi.Kube) (Cluster, error)
	// Status is of the daemon whose sessions are this user's.
	Status func() localapi.Status
	Log    *slog.Logger
}

// Run examines and says each finding when it is known, from one goroutine. Its
// error is that of ctx: what goes wrong otherwise is a finding.
func Run(ctx context.Context, c Config, say func(localapi.Finding)) error {
	e := &examination{Config: c, say: func(all ...localapi.Finding) {
		for _, f := range all {
			if ctx.Err() == nil {
				say(f)
			}
		}
	}}
	if e.Request.GatewayNamespace == "" {
		e.Request.GatewayNamespace = "podnet-system"
	}
	if e.reach(ctx) {
		e.install(ctx)
		e.permissions(ctx)
		e.paths(ctx)
	}
	e.host(ctx)
	return ctx.Err()
}

// examination is what is known half-way.
type examination struct {
	Config
	say     func(...localapi.Finding)
	cluster Cluster
	// narrowed says that the gateway is one namespace's.
	narrowed bool
	// live is the session that is on, nil when there is none to this cluster.
	live *localapi.Connection
	// admitted is what the gateway told an enrolment, nil when there was none.
	admitted *v1alpha1.Peer
}

// Findings are made by one of these; check is GROUP/NAME.

func ok(check, format string, args ...any) localapi.Finding {
	return localapi.Finding{Check: check, Result: localapi.ResultOK, Text: fmt.Sprintf(format, args...)}
}

func skipped(check, format string, args ...any) localapi.Finding {
	return localapi.Finding{Check: check, Result: localapi.ResultSkipped, Text: fmt.Sprintf(format, args...)}
}

func warning(check, fix, format string, args ...any) localapi.Finding {
	return localapi.Finding{Check: check, Result: localapi.ResultWarning, Text: fmt.Sprintf(format, args...), Fix: fix}
}

func problem(check, fix, format string, args ...any) localapi.Finding {
	return localapi.Finding{Check: check, Result: localapi.ResultProblem, Text: fmt.Sprintf(format, args...), Fix: fix}
}

// failed is a problem with the words and the hint of err, as connect would show
// them.
func failed(check string, err error) localapi.Finding {
	e := httpjson.FromError(err)
	return problem(check, e.Hint, "%s", e.Message)
}
