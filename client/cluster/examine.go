package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Reach is how far a call to the API server gets, step by step. Each step's
// error leaves the later ones untried.
type Reach struct {
	// Host and Port are where calls go: the API server, or the proxy before it.
	Host, Port string
	Proxy      bool
	// Addrs are Host's addresses, itself if it is one; Resolve is how long it
	// took to find them.
	Addrs      []netip.Addr
	Resolve    time.Duration
	ResolveErr error
	// Connect is how long TCP took.
	Connect    time.Duration
	ConnectErr error
	// Version is what the API server answered, after Answer.
	Version   string
	Old       bool
	Answer    time.Duration
	AnswerErr error
	// Skew is how much this machine's clock is ahead of the API server's, give
	// or take a second and half of Answer.
	Skew time.Duration
}

// Reach tries to make a call and looks at every step of it.
func (c *Client) Reach(ctx context.Context) Reach {
	var r Reach
	target, err := c.target()
	if err != nil {
		r.ResolveErr = err
		return r
	}
	if c.config.Proxy != nil {
		if p, err := c.config.Proxy(&http.Request{URL: target}); err == nil && p != nil {
			target, r.Proxy = p, true
		}
	}
	if r.Host, r.Port = target.Hostname(), target.Port(); r.Port == "" {
		r.Port = map[string]string{"http": "80", "socks5": "1080"}[target.Scheme]
		if r.Port == "" {
			r.Port = "443"
		}
	}
	began := time.Now()
	resolving, cancel := context.WithTimeout(ctx, dialTimeout)
	r.Addrs, r.ResolveErr = net.DefaultResolver.LookupNetIP(resolving, "ip", r.Host)
	cancel()
	if r.Resolve = time.Since(began); r.ResolveErr != nil {
		return r
	}
	began = time.Now()
	conn, err := c.dial(ctx, "tcp", net.JoinHostPort(r.Host, r.Port))
	if r.Connect, r.ConnectErr = time.Since(began), err; err != nil {
		return r
	}
	_ = conn.Close()
	c.answer(ctx, &r)
	return r
}

func (c *Client) target() (*url.URL, error) {
	target, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("read the server's address %s: %w", c.config.Host, err)
	}
	return target, nil
}

// answer asks for the version, which every server tells, and for the time,
// which every answer carries.
func (c *Client) answer(ctx context.Context, r *Reach) {
	limit := requestTimeout
	if c.config.ExecProvider != nil {
		limit = pluginTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	var v struct{ Major, Minor, GitVersion string }
	err := c.get(ctx, "/version", &v)
	r.Answer = time.Since(began)
	if err != nil {
		r.AnswerErr = c.explain("ask for the version of", err)
		return
	}
	r.Version = v.GitVersion
	old, err := tooOld(v.Major, v.Minor)
	r.Old = old || err != nil
	if date, at, err := c.date(ctx); err == nil {
		r.Skew = at.Sub(date)
	}
}

// date is the time by the API server, and by us when it said so.
func (c *Client) date(ctx context.Context) (date, at time.Time, err error) {
	target, err := c.target()
	if err != nil {
		return date, at, err
	}
	hc, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return date, at, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.JoinPath("version").String(), nil)
	if err != nil {
		return date, at, err
	}
	began := time.Now()
	resp, err := hc.Do(req)
	if err != nil {
		return date, at, err
	}
	defer resp.Body.Close()
	at = began.Add(time.Since(began) / 2)
	if date, err = http.ParseTime(resp.Header.Get("Date")); err == nil {
		date = date.Add(time.Second / 2) // the header has whole seconds, rounded down
	}
	return date, at, err
}

// Installed is a *NotInstalledError when the cluster does not know podnet's
// objects.
func (c *Client) Installed(ctx context.Context, namespace string) error {
	ok, err := c.installed(ctx)
	if err == nil && !ok {
		return &NotInstalledError{Server: c.Server, Namespace: namespace}
	}
	return c.explain("ask for podnet's objects at", err)
}

// Need is a permission that a session uses.
type Need struct {
	Permission
	// Optional says what is worse without it; empty: nothing works without it.
	Optional string
	// Ask is what an administrator would run to give it.
	Ask string
	// Allowed and Err are the answer.
	Allowed bool
	Err     error
}

// Needs asks, verb by verb, for every permission that a session uses that opens
// the given namespaces.
func (c *Client) Needs(ctx context.Context, gateway string, namespaces []string) []Need {
	return c.answerNeeds(ctx, c.needs(gateway, namespaces))
}

// answerNeeds asks for each.
func (c *Client) answerNeeds(ctx context.Context, needs []Need) []Need {
	var eg errgroup.Group
	eg.SetLimit(8)
	for i := range needs {
		eg.Go(func() error {
			needs[i].Allowed, needs[i].Err = c.Can(ctx, needs[i].Permission)
			return nil
		})
	}
	_ = eg.Wait() // none fails: each has its own error
	return needs
}

// What is worse without a permission that is optional.
const (
	noWebSocket = "streams go by SPDY, which some proxies do not let through, instead of by WebSocket"
	noLook      = "podnet cannot say what is wrong with a gateway that does not answer"
)

func (c *Client) needs(gateway string, namespaces []string) []Need {
	var all []Need
	connect := c.askConnect(gateway)
	for _, verb := range []string{"create", "get", "patch", "delete"} {
		all = append(all, Need{Permission: Permission{Verb: verb, Group: "podnet.dev", Resource: "peers", Namespace: gateway}, Ask: connect})
	}
	pod := Permission{Resource: "pods", Namespace: gateway, Name: gatewayPod}
	forward := pod
	forward.Subresource = "portforward"
	for _, n := range []Need{
		{Permission: withVerb(forward, "create")},
		{Permission: withVerb(forward, "get"), Optional: noWebSocket},
		{Permission: withVerb(pod, "get"), Optional: noLook},
	} {
		n.Ask = connect
		all = append(all, n)
	}
	for _, ns := range namespaces {
		user := c.askUser(ns)
		for _, verb := range []string{"create", "get", "patch", "delete"} {
			all = append(all, Need{Permission: Permission{Verb: verb, Group: "podnet.dev", Resource: "accesses", Namespace: ns}, Ask: user})
		}
		all = append(all, Need{Permission: Permission{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: ns}, Ask: user})
	}
	return all
}

func withVerb(p Permission, verb string) Permission {
	p.Verb = verb
	return p
}

// GatewayPod is what a gateway's pod says about itself.
type GatewayPod struct {
	Name, Image string
	Ready       bool
	Restarts    int32
	// Trouble is what keeps it from running.
	Trouble string
}

// GatewayPod reads the pod of the first gateway, which everybody who may
// connect may read by name.
func (c *Client) GatewayPod(ctx context.Context, namespace string) (GatewayPod, error) {
	out := GatewayPod{Name: gatewayPod}
	pod, err := c.pod(ctx, namespace, gatewayPod)
	switch {
	case apierrors.IsNotFound(err):
		out.Trouble = "it does not exist"
		return out, nil
	case apierrors.IsForbidden(err):
		p := Permission{Verb: "get", Resource: "pods", Namespace: namespace, Name: gatewayPod}
		return out, &ForbiddenError{User: c.User, Permission: p, Err: err, Ask: c.askConnect(namespace)}
	case err != nil:
		return out, c.explain("read the gateway's pod from", err)
	}
	out.Trouble, _ = podTrouble(pod)
	for _, s := range pod.Status.ContainerStatuses {
		out.Restarts += s.RestartCount
	}
	if len(pod.Spec.Containers) > 0 {
		out.Image = pod.Spec.Containers[0].Image
	}
	for _, cond := range pod.Status.Conditions {
		out.Ready = out.Ready || cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue
	}
	return out, nil
}

// PodSecurity is the Pod Security level that a namespace enforces, by its own
// label: privileged, baseline or restricted; empty where it has none and the
// cluster's default counts.
func (c *Client) PodSecurity(ctx context.Context, namespace string) (string, error) {
	var ns metav1.PartialObjectMetadata
	if err := c.get(ctx, "/api/v1/namespaces/"+namespace, &ns); err != nil {
		return "", c.explain("read namespace "+namespace+" from", err)
	}
	return ns.Labels["pod-security.kubernetes.io/enforce"], nil
}
