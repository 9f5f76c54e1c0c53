package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/internal/desk"
)

// Namespaced is a Client to the gateway of one namespace, which has no objects in the
// API: it keeps what the Peers say itself, and tells the gateway. Each time it does so
// over a port-forward of its own, because that is where the API server says whether we
// may.
type Namespaced struct {
	c         *Client
	namespace string

	mu    sync.Mutex
	peers map[string]*told
}

// told is a Peer as the gateway was told of it, for as long as it is ours.
type told struct {
	mu     sync.Mutex // one call at a time, in their order
	secret string
	spec   v1alpha1.PeerSpec
	heard  bool // the gateway has answered once
}

// Namespaced finds the gateway of a namespace; nil when there is none. Whoever may not
// look gets one, and learns of it by the first call.
func (c *Client) Namespaced(ctx context.Context, namespace string) (*Namespaced, error) {
	pod, err := c.pod(ctx, namespace, gatewayPod)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case apierrors.IsForbidden(err):
	case err != nil:
		return nil, c.explain("read the gateway's pod from", err)
	case pod.Labels[deploy.LabelMode] != deploy.ModeNamespace:
		return nil, nil
	}
	return &Namespaced{c: c, namespace: namespace, peers: map[string]*told{}}, nil
}

// Alone says whether there is a gateway in a namespace that serves this namespace alone;
// where that cannot be seen it does not.
func (c *Client) Alone(ctx context.Context, namespace string) bool {
	pod, err := c.pod(ctx, namespace, gatewayPod)
	return err == nil && pod.Labels[deploy.LabelMode] == deploy.ModeNamespace
}

// CannotAlone refuses what only the whole cluster's gateway does.
func CannotAlone(namespace, what string) *localapi.Error {
	return &localapi.Error{Code: localapi.CodeNotInstalled, Message: "the gateway of namespace " + namespace + " cannot " + what,
		Hint: "that takes podnet for the whole cluster, which an administrator installs: podnet install", Status: http.StatusConflict}
}

// UnlessAlone is err, with which podnet in a namespace has refused what only the whole
// cluster's does; or what is so where there is but a gateway of one namespace: in this
// one, or, where the cluster has no podnet, in our own.
func (c *Client) UnlessAlone(ctx context.Context, err error, namespace, own, what string) error {
	if away := (*UnreachableError)(nil); errors.As(err, &away) || errors.Is(err, context.Canceled) {
		return err
	}
	if c.Alone(ctx, namespace) {
		return CannotAlone(namespace, what)
	}
	if there, unknown := c.installed(ctx); there || unknown != nil {
		return err
	}
	if c.Alone(ctx, own) {
		return CannotAlone(own, what)
	}
	return &NotInstalledError{Server: c.Server, Namespace: namespace}
}

// What follows is the Client's own.

// Check finds out who we are, as Client.Check.
func (n *Namespaced) Check(ctx context.Context) error { return n.c.Check(ctx) }

// Whoami is the Client's Identity.
func (n *Namespaced) Whoami() Identity { return n.c.Whoami() }

// Remotes are the addresses that calls went to so far.
func (n *Namespaced) Remotes() []netip.Addr { return n.c.Remotes() }

// Namespaces lists the names of all namespaces, for those who may.
func (n *Namespaced) Namespaces(ctx context.Context) ([]string, error) { return n.c.Namespaces(ctx) }

// ServicesIn lists the Services of a namespace, as Client.ServicesIn.
func (n *Namespaced) ServicesIn(ctx context.Context, namespace, domain string) ([]localapi.Service, error) {
	return n.c.ServicesIn(ctx, namespace, domain)
}

// Redial leaves connections that may be dead.
func (n *Namespaced) Redial() { n.c.Redial() }

// Reach tries to make a call and looks at every step of it.
func (n *Namespaced) Reach(ctx context.Context) Reach { return n.c.Reach(ctx) }

// Installed says nothing: there is one.
func (n *Namespaced) Installed(context.Context, string) error { return nil }

// GatewayPod reads the pod of the gateway.
func (n *Namespaced) GatewayPod(ctx context.Context, namespace string) (GatewayPod, error) {
	return n.c.GatewayPod(ctx, namespace)
}

// PodSecurity is the Pod Security level that a namespace enforces.
func (n *Namespaced) PodSecurity(ctx context.Context, namespace string) (string, error) {
	return n.c.PodSecurity(ctx, namespace)
}

// Needs asks for the permissions that a session uses.
func (n *Namespaced) Needs(ctx context.Context, _ string, _ []string) []Need {
	pod := Permission{Resource: "pods", Namespace: n.namespace, Name: gatewayPod}
	forward := pod
	forward.Subresource = "portforward"
	return n.c.answerNeeds(ctx, []Need{
		{Permission: withVerb(forward, "create"), Ask: n.ask()},
		{Permission: withVerb(forward, "get"), Ask: n.ask(), Optional: noWebSocket},
		{Permission: withVerb(pod, "get"), Ask: n.ask(), Optional: noLook},
	})
}

// ask is how somebody who may lets us in.
func (n *Namespaced) ask() string {
	return "kubectl -n " + n.namespace + " create rolebinding " + n.c.bindingName() + " --clusterrole=edit " + n.c.subject()
}

// DialPod opens a stream to a port on the loopback of the gateway's pod.
func (n *Namespaced) DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
	conn, err := n.c.DialPod(ctx, namespace, pod, port)
	if forbidden, ok := errors.AsType[*ForbiddenError](err); ok {
		forbidden.Ask = n.ask()
	}
	return conn, err
}

// What follows is done by the gateway.

// CreatePeer enrols a key.
func (n *Namespaced) CreatePeer(ctx context.Context, _, name string, spec v1alpha1.PeerSpec) error {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	spec.User, spec.Renew = n.c.User, 1
	t := &told{secret: hex.EncodeToString(secret[:]), spec: spec}
	n.mu.Lock()
	n.peers[name] = t
	n.mu.Unlock()
	_, err := n.put(ctx, name, func(*v1alpha1.PeerSpec) {})
	return err
}

// RenewPeer prolongs the lease. Its error is a *ForbiddenError when we may not
// port-forward any more, ErrGone when the Peer is none of ours.
func (n *Namespaced) RenewPeer(ctx context.Context, _, name string, renew int64) error {
	_, err := n.put(ctx, name, func(s *v1alpha1.PeerSpec) { s.Renew = max(s.Renew, renew) })
	return err
}

// SetCandidates tells at which UDP addresses we might be reached.
func (n *Namespaced) SetCandidates(ctx context.Context, _, name string, candidates []string) error {
	_, err := n.put(ctx, name, func(s *v1alpha1.PeerSpec) { s.Candidates = candidates })
	return err
}

// SetVirtual tells which prefixes are to stand for the cluster's, and returns the Peer
// when the gateway maps them all.
func (n *Namespaced) SetVirtual(ctx context.Context, _, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	p, err := n.put(ctx, name, func(s *v1alpha1.PeerSpec) { s.Virtual = virtual })
	if err != nil || slices.Equal(p.Status.Virtual, virtual) {
		return p, err
	}
	why := "it does not say why"
	if refused := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionVirtual); refused != nil {
		why = oneLine(refused.Message)
	}
	return nil, notMapped(why)
}

// Peer is what the gateway says of a Peer of ours. One that has started since learns of
// it so.
func (n *Namespaced) Peer(ctx context.Context, _, name string) (*v1alpha1.Peer, error) {
	return n.put(ctx, name, func(*v1alpha1.PeerSpec) {})
}

// Await returns the Peer when the gateway has admitted it.
func (n *Namespaced) Await(ctx context.Context, namespace, name string, _ []string) (*v1alpha1.Peer, error) {
	p, err := n.Peer(ctx, namespace, name)
	if err != nil {
		return nil, n.c.late(ctx, namespace, err)
	}
	if done, err := admitted(p); !done {
		return nil, cmp.Or(err, error(&localapi.Error{Code: localapi.CodeTimeout, Message: "the gateway of namespace " + n.namespace + " does not admit us", Hint: "podnet doctor"}))
	}
	return p, nil
}

// DeletePeer ends a Peer. One that the gateway does not know, or that is not ours, is
// none.
func (n *Namespaced) DeletePeer(ctx context.Context, _, name string) error {
	t := n.told(name)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := n.call(ctx, desk.Call{Version: desk.Version, Verb: desk.Delete, Name: name, Secret: t.secret})
	var none *NotInstalledError
	if err != nil && !errors.As(err, &none) {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.peers, name)
	return nil
}

// CreateAccess finds out whether the gateway opens a namespace: its own it does, to
// every Peer.
func (n *Namespaced) CreateAccess(_ context.Context, namespace, _ string, scope v1alpha1.AccessScope) error {
	if namespace == n.namespace && scope != v1alpha1.ScopeCluster {
		return nil
	}
	what := "namespace " + namespace
	if scope == v1alpha1.ScopeCluster {
		what = "the whole cluster"
	}
	return &localapi.Error{Code: localapi.CodeForbidden, Message: fmt.Sprintf("the gateway of namespace %s does not open %s", n.namespace, what),
		Hint: "podnet connect -n " + n.namespace + " opens it alone; more takes podnet for the whole cluster, which an administrator installs", Status: http.StatusForbidden}
}

// RenewAccess has nothing to do: RenewPeer did it.
func (n *Namespaced) RenewAccess(context.Context, string, string, v1alpha1.AccessScope, int64) error {
	return nil
}

// DeleteAccess has nothing to do: DeletePeer does it.
func (n *Namespaced) DeleteAccess(context.Context, string, string) error { return nil }

func (n *Namespaced) told(name string) *told {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers[name]
}

// put changes what a Peer says, tells the gateway all of it, and returns it with what
// that makes of it. With an error the gateway may know of the change or not; the next
// call tells it again.
func (n *Namespaced) put(ctx context.Context, name string, change func(*v1alpha1.PeerSpec)) (*v1alpha1.Peer, error) {
	t := n.told(name)
	if t == nil {
		return nil, ErrGone
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.spec)
	status, err := n.call(ctx, desk.Call{Version: desk.Version, Verb: desk.Put, Name: name, Secret: t.secret, Spec: &t.spec})
	if err != nil {
		if none := (*NotInstalledError)(nil); errors.As(err, &none) && t.heard && n.uninstalled(ctx) {
			return nil, ErrGone
		}
		return nil, err
	}
	if status == nil {
		return nil, fmt.Errorf("the gateway of namespace %s says nothing of our peer", n.namespace)
	}
	t.heard = true
	return &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: name}, Spec: *t.spec.DeepCopy(), Status: *status}, nil
}

// uninstalled tells a gateway whose pod is being replaced from one that is no more.
func (n *Namespaced) uninstalled(ctx context.Context) bool {
	return apierrors.IsNotFound(n.c.get(ctx, "/apis/apps/v1/namespaces/"+n.namespace+"/statefulsets/"+deploy.StatefulSetName, nil))
}

// call makes one Call.
func (n *Namespaced) call(ctx context.Context, call desk.Call) (*v1alpha1.PeerStatus, error) {
	ctx, cancel := withTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(earlier(deadline, time.Now().Add(desk.Patience)))
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var answer desk.Answer
	err = desk.Write(conn, call)
	if err == nil {
		err = desk.Read(conn, &answer)
	}
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	case err != nil:
		return nil, &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("the gateway of namespace %s does not answer: %s", n.namespace, reason(err)),
			Hint: "kubectl -n " + n.namespace + " get pods", Status: http.StatusGatewayTimeout}
	case answer.Version != desk.Version || answer.Error != nil && answer.Error.Code == desk.CodeVersion:
		return nil, &localapi.Error{Code: localapi.CodeTooOld, Message: fmt.Sprintf("the gateway of namespace %s speaks %q, and this podnet %s", n.namespace, oneLine(answer.Version), desk.Version),
			Hint: "the same version on both sides does: podnet install --namespace " + n.namespace}
	case answer.Error != nil:
		return nil, &localapi.Error{Code: localapi.CodeForbidden, Message: fmt.Sprintf("the gateway of namespace %s refuses: %s", n.namespace, oneLine(answer.Error.Message)),
			Hint: "kubectl -n " + n.namespace + " logs " + gatewayPod + " may say more", Status: http.StatusForbidden}
	}
	return answer.Status, nil
}

// dial opens a port-forward to the gateway's desk. That there is no pod is a
// *NotInstalledError.
func (n *Namespaced) dial(ctx context.Context) (net.Conn, error) {
	conn, err := n.c.upgrade(ctx, n.namespace, gatewayPod)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &NotInstalledError{Server: n.c.Server, Namespace: n.namespace}
	case apierrors.IsForbidden(err):
		p := Permission{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: n.namespace, Name: gatewayPod}
		return nil, &ForbiddenError{User: n.c.User, Permission: p, Err: err, Ask: n.ask()}
	case err != nil:
		return nil, n.c.explain("forward a port to the gateway of namespace "+n.namespace+" at", err)
	}
	s, err := openWithin(ctx, conn, fmt.Sprintf("%s/%s:%d", n.namespace, gatewayPod, desk.Port), desk.Port)
	if err != nil {
		return nil, &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("forward a port to the gateway of namespace %s: %s", n.namespace, reason(err)),
			Hint: "kubectl -n " + n.namespace + " get pods", Status: http.StatusGatewayTimeout}
	}
	return s, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
