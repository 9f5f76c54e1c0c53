package cluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

const api = "/apis/podnet.dev/v1alpha1"

// pollEvery is how often an object is read while we wait for it: there is no
// right to watch it.
const pollEvery = 100 * time.Millisecond

func peerPath(namespace, name string) string {
	return api + "/namespaces/" + namespace + "/peers" + slash(name)
}

func accessPath(namespace, name string) string {
	return api + "/namespaces/" + namespace + "/accesses" + slash(name)
}

func slash(name string) string {
	if name == "" {
		return ""
	}
	return "/" + name
}

// ErrGone is returned when an object of ours is no more.
var ErrGone = errors.New("it was deleted")

// PeerName makes a name for a new Peer of user on device. Whoever reads a list
// sees whose it is without seeing the user's whole name; four random
// characters tell a user's sessions on one machine apart.
func PeerName(user, device string) string {
	sum := sha256.Sum256([]byte(user))
	var salt [2]byte
	_, _ = rand.Read(salt[:]) // never fails
	return "u" + hex.EncodeToString(sum[:4]) + "-" + nameOf(device) + "-" + hex.EncodeToString(salt[:])
}

// CreatePeer enrols a key: it writes the Peer with Renew 1.
func (c *Client) CreatePeer(ctx context.Context, namespace, name string, spec v1alpha1.PeerSpec) error {
	spec.User, spec.Renew = c.User, 1
	p := v1alpha1.Peer{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Peer"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       spec,
	}
	err := c.post(ctx, peerPath(namespace, ""), p, nil)
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) || apierrors.IsNotFound(err):
		if installed, derr := c.installed(ctx); derr == nil && !installed || apierrors.IsNotFound(err) {
			return &NotInstalledError{Server: c.Server, Namespace: namespace}
		}
		if beyond := c.refusedBeyond(ctx, namespace, spec, err); beyond != nil {
			return beyond
		}
		return c.refusedPeer(ctx, namespace, "create", err)
	}
	return c.explain("enrol at", err)
}

// installed asks discovery, which every authenticated user may read.
func (c *Client) installed(ctx context.Context) (bool, error) {
	err := c.get(ctx, api, nil)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (c *Client) refusedPeer(ctx context.Context, namespace, verb string, err error) error {
	if p := c.missing(ctx, []Permission{{Verb: verb, Group: "podnet.dev", Resource: "peers", Namespace: namespace}}); p != nil {
		return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: c.askConnect(namespace)}
	}
	return c.admission(err)
}

func (c *Client) askConnect(namespace string) string {
	return fmt.Sprintf("kubectl -n %s create rolebinding %s --role=podnet-connect %s", namespace, c.bindingName(), c.subject())
}

// admission shows a refusal that is no matter of RBAC in the policy's words.
func (c *Client) admission(err error) error {
	text := reason(err)
	if i := strings.Index(text, "PODNET-"); i >= 0 {
		text = text[i:]
	}
	return &localapi.Error{Code: localapi.CodeForbidden, Message: "the cluster's admission refuses: " + text,
		Hint: "an administrator can say more: kubectl get validatingadmissionpolicies", Status: http.StatusForbidden}
}

// CreateAccess asks for a namespace, or for the whole cluster, for a Peer.
func (c *Client) CreateAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope) error {
	a := v1alpha1.Access{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Access"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: peer},
		Spec:       v1alpha1.AccessSpec{User: c.User, Peer: peer, Renew: 1, Scope: scope},
	}
	err := c.post(ctx, accessPath(namespace, ""), a, nil)
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return &localapi.Error{Code: localapi.CodeUsage, Message: "there is no namespace " + namespace + " in the cluster " + c.Server,
			Hint: "kubectl get namespaces lists them", Status: http.StatusNotFound}
	case apierrors.IsForbidden(err):
		return c.refusedAccess(ctx, namespace, scope, "create", err)
	}
	return c.explain("ask for namespace "+namespace+" at", err)
}

func (c *Client) refusedAccess(ctx context.Context, namespace string, scope v1alpha1.AccessScope, verb string, err error) error {
	opened := namespace
	ask := c.askUser(namespace)
	if scope == v1alpha1.ScopeCluster {
		opened = ""
		ask = fmt.Sprintf("kubectl create clusterrolebinding %s --clusterrole=podnet-user %s", c.bindingName(), c.subject())
	}
	p := c.missing(ctx, []Permission{
		{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: opened},
		{Verb: verb, Group: "podnet.dev", Resource: "accesses", Namespace: namespace},
	})
	if p == nil {
		return c.admission(err)
	}
	return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: ask}
}

// RenewPeer prolongs the lease. Its error is ErrGone when the Peer was deleted,
// a *ForbiddenError when the permission was.
func (c *Client) RenewPeer(ctx context.Context, namespace, name string, renew int64) error {
	return c.patchPeer(ctx, namespace, name, "renew", renew, "renew the lease at")
}

// SetCandidates writes at which UDP addresses (ip:port, at most 16) the Peer
// might be reached, with the errors of RenewPeer.
func (c *Client) SetCandidates(ctx context.Context, namespace, name string, candidates []string) error {
	return c.patchPeer(ctx, namespace, name, "candidates", candidates, "write our addresses at")
}

// SetVirtual writes which prefixes are to stand for the cluster's in a Peer, and
// returns it when the gateways map them all. Besides the errors of RenewPeer it has
// one for a cluster whose podnet cannot, and one for prefixes that are refused.
func (c *Client) SetVirtual(ctx context.Context, namespace, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	if err := c.patchPeer(ctx, namespace, name, "virtual", virtual, "ask for virtual addresses at"); err != nil {
		return nil, err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for written := int64(0); ; {
		p, err := c.Peer(ctx, namespace, name)
		if err != nil {
			return nil, c.late(ctx, namespace, err)
		}
		if written == 0 {
			written = p.Generation
		}
		refused := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionVirtual)
		switch {
		case !slices.Equal(p.Spec.Virtual, virtual): // a server drops what it does not know
			return nil, c.outdated("give its networks virtual addresses")
		case slices.Equal(p.Status.Virtual, virtual):
			return p, nil
		case refused != nil && refused.Status == metav1.ConditionFalse && refused.ObservedGeneration >= written:
			return nil, notMapped(oneLine(refused.Message))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, c.late(ctx, namespace, ctx.Err())
		}
	}
}

func notMapped(why string) error {
	return &localapi.Error{Code: localapi.CodeConflict, Message: "the gateway does not map virtual addresses: " + why,
		Hint: "podnet connect --addresses direct goes without them", Status: http.StatusConflict}
}

// RenewAccess prolongs an Access, with the errors of RenewPeer.
func (c *Client) RenewAccess(ctx context.Context, namespace, name string, scope v1alpha1.AccessScope, renew int64) error {
	err := c.patch(ctx, accessPath(namespace, name), "renew", renew)
	if apierrors.IsForbidden(err) {
		return c.refusedAccess(ctx, namespace, scope, "patch", err)
	}
	return c.explain("renew the lease at", err)
}

// patchPeer sets a field of a Peer's spec; purpose is for the error.
func (c *Client) patchPeer(ctx context.Context, namespace, name, field string, value any, purpose string) error {
	err := c.patch(ctx, peerPath(namespace, name), field, value)
	if apierrors.IsForbidden(err) {
		return c.refusedPeer(ctx, namespace, "patch", err)
	}
	return c.explain(purpose, err)
}

// patch sets a field of an object's spec. Its error is ErrGone when there is no
// object.
func (c *Client) patch(ctx context.Context, path, field string, value any) error {
	err := c.do(ctx, c.rest.Patch("application/merge-patch+json"), path, mergePatch{"spec": map[string]any{field: value}}, nil)
	if apierrors.IsNotFound(err) {
		return ErrGone
	}
	return err
}

// DeletePeer and DeleteAccess end what they name; that it is gone already is
// no error.
func (c *Client) DeletePeer(ctx context.Context, namespace, name string) error {
	return c.explain("delete our peer at", ignoreNotFound(c.delete(ctx, peerPath(namespace, name))))
}

func (c *Client) DeleteAccess(ctx context.Context, namespace, name string) error {
	return c.explain("delete our access at", ignoreNotFound(c.delete(ctx, accessPath(namespace, name))))
}

// deleteExactly deletes the object that has this UID, and not another one of its
// name.
func (c *Client) deleteExactly(ctx context.Context, path string, uid types.UID) error {
	exactly := metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &metav1.Preconditions{UID: &uid}}
	err := ignoreNotFound(c.do(ctx, c.rest.Delete(), path, exactly, nil))
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// refusedList says who would let us list a kind of ours in a namespace, in all of
// them when it is empty.
func (c *Client) refusedList(namespace, kind string, err error) error {
	ask := c.askUser(namespace)
	if namespace == "" {
		ask = fmt.Sprintf("kubectl create clusterrolebinding %s --clusterrole=podnet-user %s", c.bindingName(), c.subject())
	}
	return &ForbiddenError{User: c.User, Permission: Permission{Verb: "list", Group: "podnet.dev", Resource: kind, Namespace: namespace}, Err: err, Ask: ask}
}

// unknown says what a create that found nothing means: no such namespace, or no
// such kind, without which podnet cannot do what is named.
func (c *Client) unknown(ctx context.Context, namespace, kind, what string) error {
	var kinds metav1.APIResourceList
	err := c.get(ctx, api, &kinds)
	if err != nil && !apierrors.IsNotFound(err) {
		return c.explain("ask for the kinds of", err)
	}
	for _, k := range kinds.APIResources {
		if k.Name == kind {
			return &localapi.Error{Code: localapi.CodeUsage, Message: "there is no namespace " + namespace + " in the cluster " + c.Server,
				Hint: "kubectl get namespaces lists them", Status: http.StatusNotFound}
		}
	}
	return c.outdated(what)
}

// outdated says that the cluster's podnet is of a time before what is named.
func (c *Client) outdated(what string) error {
	return &localapi.Error{Code: localapi.CodeNotInstalled, Message: "podnet in the cluster " + c.Server + " cannot " + what + " yet",
		Hint: "an administrator brings it up to date with podnet install"}
}

// Peer reads one; ErrGone when there is none.
func (c *Client) Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error) {
	var p v1alpha1.Peer
	err := c.get(ctx, peerPath(namespace, name), &p)
	if apierrors.IsNotFound(err) {
		return nil, ErrGone
	}
	return &p, c.explain("read our peer at", err)
}

// Await returns the Peer once the gateway has admitted it and its Accesses in
// the given namespaces.
func (c *Client) Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		p, err := c.Peer(ctx, namespace, name)
		if err != nil {
			return nil, c.late(ctx, namespace, err)
		}
		done, err := admitted(p)
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, c.late(ctx, namespace, ctx.Err())
		}
	}
	for _, ns := range accesses {
		if err := c.awaitAccess(ctx, namespace, ns, name, tick); err != nil {
			return nil, err
		}
	}
	return c.Peer(ctx, namespace, name)
}

func (c *Client) awaitAccess(ctx context.Context, gateway, namespace, name string, tick *time.Ticker) error {
	for {
		var a v1alpha1.Access
		if err := c.get(ctx, accessPath(namespace, name), &a); err != nil {
			return c.late(ctx, gateway, c.explain("read our access at", err))
		}
		if meta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionReady) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c.late(ctx, gateway, ctx.Err())
		}
	}
}

// admitted reads the gateway's verdict: yes, not yet, or an error for no.
func admitted(p *v1alpha1.Peer) (bool, error) {
	ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return false, nil
	}
	if ready.Status == metav1.ConditionTrue {
		return len(p.Status.Gateways) > 0 && p.Status.Network != nil, nil
	}
	hint := map[string]string{
		v1alpha1.ReasonLimitReached:  "other sessions of yours hold the places: podnet disconnect there, or wait until their leases end",
		v1alpha1.ReasonPolicyMissing: "an administrator puts the admission policies back with podnet install",
		v1alpha1.ReasonConflict:      "try again: every session makes a new key",
		v1alpha1.ReasonExpired:       "try again",
	}[ready.Reason]
	if hint == "" {
		return false, nil // a reason that we do not know may pass
	}
	return false, &localapi.Error{Code: localapi.CodeForbidden, Message: "the gateway does not admit us: " + oneLine(ready.Message), Hint: hint}
}

// late explains why nobody answered: what the gateway's pod says, else that
// nothing came.
func (c *Client) late(ctx context.Context, namespace string, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	why := "it says nothing"
	if pod, err := c.pod(ask, namespace, gatewayPod); apierrors.IsNotFound(err) {
		why = "its pod " + gatewayPod + " does not exist"
	} else if err == nil {
		if w, _ := podTrouble(pod); w != "" {
			why = w
		}
	}
	return &localapi.Error{Code: localapi.CodeTimeout, Message: "the gateway did not admit us in time: " + why,
		Hint: "kubectl -n " + namespace + " get pods"}
}
