package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

// maxSkew is how far the clocks may be apart before tokens and certificates
// that were just issued look as if they came from the future, or are over.
const maxSkew = 30 * time.Second

// reach goes to the API server step by step, and reports whether it answers
// with a name for us.
func (e *examination) reach(ctx context.Context) bool {
	c, err := e.OpenCluster(e.Request.Kube)
	if err != nil {
		e.say(failed("cluster/kubeconfig", err))
		return false
	}
	e.cluster = c
	id := c.Whoami()
	if len(e.Request.Namespaces) == 0 {
		e.Request.Namespaces = []string{id.Namespace}
	}
	e.live = connection(e.Status(), id.Server, e.Request.GatewayNamespace)
	e.say(kubeconfigFinding(id))
	r := c.Reach(ctx)
	e.say(reachFindings(id.Server, r)...)
	if r.Version == "" || r.Old {
		return false
	}
	err = c.Check(ctx)
	e.say(credentialsFinding(c.Whoami().User, err))
	return err == nil
}

// connection is the session to this cluster's gateway that is ready.
func connection(s localapi.Status, server, gateway string) *localapi.Connection {
	i := slices.IndexFunc(s.Connections, func(c localapi.Connection) bool {
		return c.Server == server && c.Gateway.Namespace == gateway && c.Since != nil
	})
	if i < 0 {
		return nil
	}
	return &s.Connections[i]
}

func kubeconfigFinding(id cluster.Identity) localapi.Finding {
	if id.Context == "" {
		return ok("cluster/kubeconfig", "server %s, namespace %s", id.Server, id.Namespace)
	}
	return ok("cluster/kubeconfig", "context %s: server %s, namespace %s", id.Context, id.Server, id.Namespace)
}

// reachFindings judges how far a call got. It says nothing of the steps behind
// the first that failed.
func reachFindings(server string, r cluster.Reach) []localapi.Finding {
	what := "the API server"
	if r.Proxy {
		what = "the proxy of the API server"
	}
	var all []localapi.Finding
	switch _, err := netip.ParseAddr(r.Host); {
	case r.ResolveErr != nil:
		return append(all, problem("cluster/name", "is a VPN missing that resolves it? getent hosts "+r.Host+"; the server is in the kubeconfig",
			"the name of %s, %s, does not resolve: %v", what, r.Host, r.ResolveErr))
	case err == nil:
		all = append(all, ok("cluster/name", "%s is named by its address, %s", what, r.Host))
	default:
		all = append(all, ok("cluster/name", "%s, %s, is %s (%s)", what, r.Host, addresses(r.Addrs), rounded(r.Resolve)))
	}
	if r.ConnectErr != nil {
		return append(all, problem("cluster/connection", "does kubectl cluster-info work from here? A VPN or a proxy may be missing, or a firewall in the way",
			"%s does not take connections: %v", what, r.ConnectErr))
	}
	if r.AnswerErr != nil {
		f := failed("cluster/connection", r.AnswerErr)
		return append(all, f)
	}
	all = append(all, ok("cluster/connection", "%s connects in %s, an answer takes %s", what, rounded(r.Connect), rounded(r.Answer)))
	if r.Old {
		err := &cluster.TooOldError{Server: server, Version: r.Version}
		return append(all, failed("cluster/version", err))
	}
	return append(all, ok("cluster/version", "Kubernetes %s", r.Version), clockFinding(r.Skew))
}

func clockFinding(skew time.Duration) localapi.Finding {
	apart := skew.Abs().Round(time.Second)
	switch {
	case apart <= maxSkew:
		return ok("cluster/clock", "this machine's clock and the API server's are within %v of each other", max(apart, time.Second))
	case skew > 0:
		return warning("cluster/clock", clockFix, "this machine's clock is %v ahead of the API server's: certificates and tokens may seem to be over", apart)
	}
	return warning("cluster/clock", clockFix, "this machine's clock is %v behind the API server's: new certificates and tokens may seem not to be valid yet", apart)
}

const clockFix = "set the clock of the machine that is wrong, for example by timedatectl set-ntp true"

func credentialsFinding(user string, err error) localapi.Finding {
	if err != nil {
		return failed("cluster/credentials", err)
	}
	return ok("cluster/credentials", "the API server knows us as %s", user)
}

// install looks at podnet in the cluster.
func (e *examination) install(ctx context.Context) {
	e.narrow(ctx)
	ns := e.Request.GatewayNamespace
	if err := e.cluster.Installed(ctx, ns); err != nil {
		e.say(failed("podnet/installed", err))
		return
	}
	if e.narrowed {
		e.say(ok("podnet/installed", "namespace mode (%s): there is a gateway of that namespace alone", ns))
	} else {
		e.say(ok("podnet/installed", "the cluster knows podnet's objects"))
	}
	pod, err := e.cluster.GatewayPod(ctx, ns)
	e.say(podFinding(ns, pod, err))
	level, err := e.cluster.PodSecurity(ctx, ns)
	e.say(gatewaySecurityFinding(ns, level, err))
	for _, opened := range e.Request.Namespaces {
		level, err := e.cluster.PodSecurity(ctx, opened)
		e.say(namespaceSecurityFinding(opened, level, err))
	}
}

// narrow goes over to the gateway of one namespace where connect would: podnet is not
// installed in the cluster, or lets nobody of this name in, or is said to be in a namespace
// that has such a gateway.
func (e *examination) narrow(ctx context.Context) {
	c, can := e.cluster.(interface {
		Namespaced(ctx context.Context, namespace string) (*cluster.Namespaced, error)
	})
	ns := e.Request.GatewayNamespace
	if ns == localapi.GatewayNamespace {
		ns = e.Request.Namespaces[0]
		if e.cluster.Installed(ctx, ns) == nil && e.letsIn(ctx) {
			return
		}
	}
	if !can {
		return
	}
	other, err := c.Namespaced(ctx, ns)
	if err != nil || other == nil {
		return
	}
	e.cluster, e.narrowed, e.Request.GatewayNamespace = other, true, ns
	e.live = connection(e.Status(), other.Whoami().Server, ns)
}

// letsIn reports whether we may enrol with the whole cluster's gateway, or it cannot be
// known.
func (e *examination) letsIn(ctx context.Context) bool {
	return !slices.ContainsFunc(e.cluster.Needs(ctx, e.Request.GatewayNamespace, nil), func(n cluster.Need) bool {
		return n.Verb == "create" && n.Resource == "peers" && n.Err == nil && !n.Allowed
	})
}

func podFinding(ns string, p cluster.GatewayPod, err error) localapi.Finding {
	const check = "podnet/gateway"
	name := ns + "/" + p.Name
	switch {
	case err != nil:
		return skipped(check, "cannot look at pod %s: %v", name, err)
	case p.Trouble != "":
		return problem(check, "kubectl -n "+ns+" describe pod "+p.Name+"; podnet install repairs it", "%s does not run: %s", name, p.Trouble)
	case !p.Ready:
		return problem(check, "kubectl -n "+ns+" logs "+p.Name+" says what it waits for", "%s runs and is not ready", name)
	case p.Restarts > 0:
		return warning(check, "kubectl -n "+ns+" logs --previous "+p.Name, "%s is ready, image %s, and was restarted %d times (this is podnet %s)", name, p.Image, p.Restarts, version.Version)
	}
	return ok(check, "%s is ready, image %s (this is podnet %s)", name, p.Image, version.Version)
}

func gatewaySecurityFinding(ns, level string, err error) localapi.Finding {
	const check = "podnet/pod-security"
	switch {
	case err != nil:
		return skipped(check, "cannot read the labels of namespace %s: %v", ns, err)
	case level == "":
		return ok(check, "namespace %s enforces no Pod Security level of its own; the gateway passes each", ns)
	}
	return ok(check, "namespace %s enforces Pod Security %s, which the gateway passes", ns, level)
}

// namespaceSecurityFinding tells whether pods there could be given a container
// that may redirect their traffic. A session does without.
func namespaceSecurityFinding(ns, level string, err error) localapi.Finding {
	const check = "podnet/pod-security"
	switch {
	case err != nil:
		return skipped(check, "cannot read the labels of namespace %s: %v", ns, err)
	case level == "baseline", level == "restricted":
		return ok(check, "namespace %s enforces Pod Security %s: its pods take no ephemeral container with NET_ADMIN; a session needs none", ns, level)
	case level == "":
		return ok(check, "namespace %s enforces no Pod Security level of its own: its pods may take ephemeral containers with NET_ADMIN unless the cluster's default says no", ns)
	}
	return ok(check, "namespace %s enforces Pod Security %s: its pods may take ephemeral containers with NET_ADMIN", ns, level)
}

// permissions asks verb by verb.
func (e *examination) permissions(ctx context.Context) {
	for _, n := range e.cluster.Needs(ctx, e.Request.GatewayNamespace, e.Request.Namespaces) {
		e.say(permissionFinding(e.cluster.Whoami().User, n))
	}
}

func permissionFinding(user string, n cluster.Need) localapi.Finding {
	check := "permission/" + n.Verb
	ask := "ask an administrator for: " + n.Ask
	switch {
	case n.Err != nil:
		return skipped(check, "cannot ask whether %s may %s: %v", user, n.Permission, n.Err)
	case n.Allowed:
		return ok(check, "%s may %s", user, n.Permission)
	case n.Optional != "":
		return warning(check, ask, "%s may not %s: %s", user, n.Permission, n.Optional)
	}
	return problem(check, ask, "%s may not %s", user, n.Permission)
}

func addresses(all []netip.Addr) string {
	var words []string
	for _, a := range all {
		words = append(words, a.Unmap().String())
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}

// rounded prints a duration with as many digits as anybody reads.
func rounded(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}
