// Package admission asks a real API server what podnet's roles and admission
// policies let whom do.
package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

const (
	system  = deploy.DefaultNamespace
	key     = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	gateway = "system:serviceaccount:" + system + ":" + deploy.ServiceAccountName
)

var ctx = context.Background()

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func peer(namespace, name, user string) *podnet.Peer {
	return &podnet.Peer{ObjectMeta: meta(namespace, name), Spec: podnet.PeerSpec{User: user, PublicKey: key, LeaseSeconds: 60, Renew: 1}}
}

// exported is a Peer with a lease in seconds.
func exported(name, user string, lease int32) *podnet.Peer {
	p := peer(system, name, user)
	p.Spec.LeaseSeconds = lease
	return p
}

// beyond is a Peer that is to have something beside the cluster.
func beyond(name, user string, routes, domains []string) *podnet.Peer {
	p := peer(system, name, user)
	p.Spec.AlsoRoutes, p.Spec.AlsoDomains = routes, domains
	return p
}

func access(namespace, name, user string, scope podnet.AccessScope) *podnet.Access {
	return &podnet.Access{ObjectMeta: meta(namespace, name), Spec: podnet.AccessSpec{User: user, Peer: name, Renew: 1, Scope: scope}}
}

// renewed is what a renewal sends.
func renewed(o client.Object, patch string) func(client.Client) error {
	return func(c client.Client) error {
		return c.Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
}

func created(o client.Object) func(client.Client) error {
	return func(c client.Client) error { return c.Create(ctx, o.DeepCopyObject().(client.Object)) }
}

func dryRun(o client.Object) func(client.Client) error {
	return func(c client.Client) error {
		return c.Create(ctx, o.DeepCopyObject().(client.Object), client.DryRunAll)
	}
}

func deleted(o client.Object) func(client.Client) error {
	return func(c client.Client) error { return c.Delete(ctx, o) }
}

func status(o client.Object, patch string) func(client.Client) error {
	return func(c client.Client) error {
		return c.Status().Patch(ctx, o, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
}

// TestWhoMayDoWhat is one story: the rows build on each other.
//
// alice may port-forward in shop, vera may go beside the cluster, lead may revoke in shop and the gateway's
// namespace, root-ish "olga" may port-forward everywhere, bob may only connect.
func TestWhoMayDoWhat(t *testing.T) {
	s := apiserver.Start(t)
	admin := s.Admin(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []string{"shop", "pay", "doomed"} {
		must(admin.Create(ctx, &corev1.Namespace{ObjectMeta: meta("", ns)}))
	}
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Groups: []string{"dev"}})
	group := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: name}}
	}
	user := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}
	}
	role := func(name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	for _, b := range []client.Object{
		&rbacv1.RoleBinding{ObjectMeta: meta("shop", "alice"), Subjects: user("alice"), RoleRef: role("podnet-user")},
		&rbacv1.RoleBinding{ObjectMeta: meta("doomed", "alice"), Subjects: user("alice"), RoleRef: role("podnet-user")},
		&rbacv1.RoleBinding{ObjectMeta: meta("shop", "lead"), Subjects: user("lead"), RoleRef: role("podnet-admin")},
		&rbacv1.RoleBinding{ObjectMeta: meta(system, "lead"), Subjects: user("lead"), RoleRef: role("podnet-admin")},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "olga"), Subjects: user("olga"), RoleRef: role("podnet-user")},
		// vera may go beside the cluster, as far as two names of each kind say; olga may have all there.
		&rbacv1.Role{ObjectMeta: meta(system, "vpc"), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{"podnet.dev"}, Resources: []string{"peers"}, Verbs: []string{deploy.VerbRoute}, ResourceNames: []string{"10.20.0.0/16", "10.21.0.0/16", "2001:db8::/32"}},
			{APIGroups: []string{"podnet.dev"}, Resources: []string{"peers"}, Verbs: []string{deploy.VerbDomain}, ResourceNames: []string{"corp.internal"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta(system, "vera"), Subjects: user("vera"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "vpc"}},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "beyond"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"peers"}, Verbs: []string{deploy.VerbRoute, deploy.VerbDomain}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "olga-beyond"), Subjects: user("olga"), RoleRef: role("beyond")},
		// carl has every right on our objects, in all namespaces, and no other.
		&rbacv1.ClusterRole{ObjectMeta: meta("", "all-of-podnet"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"peers", "peers/status", "accesses", "accesses/status"},
			Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "carl"), Subjects: user("carl"), RoleRef: role("all-of-podnet")},
		// Kubernetes' own controllers have these where they run with them.
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "housekeepers"), Subjects: group("housekeepers"), RoleRef: role("all-of-podnet")},
	} {
		must(admin.Create(ctx, b))
	}

	who := map[string]client.Client{
		"alice":   s.As(t, "alice", "dev"),
		"bob":     s.As(t, "bob", "dev"),
		"olga":    s.As(t, "olga", "dev"),
		"lead":    s.As(t, "lead", "dev"),
		"vera":    s.As(t, "vera", "dev"),
		"carl":    s.As(t, "carl"),
		"gateway": s.As(t, gateway, "system:serviceaccounts"),
		"nscleaner": s.As(t, "system:serviceaccount:kube-system:namespace-controller",
			"housekeepers"),
		"gc": s.As(t, "system:serviceaccount:kube-system:generic-garbage-collector", "housekeepers"),
	}
	apiserver.Eventually(t, 10*time.Second, "RoleBindings are seen", func() error {
		return who["alice"].Create(ctx, access("shop", "probe", "alice", podnet.ScopeNamespace), client.DryRunAll)
	})

	const (
		ok     = ""
		rbac   = "cannot" // the API server's own words for a missing verb
		owner  = deploy.ReasonOwner
		denied = deploy.ReasonAccess
		place  = deploy.ReasonNamespace
	)
	alices, bobs := peer(system, "alice-1", "alice"), peer(system, "bob-1", "bob")
	rows := []struct {
		who, what string
		do        func(client.Client) error
		want      string // "" allowed, else a word of the refusal
	}{
		{"alice", "enrols herself", created(alices), ok},
		{"alice", "enrols as bob", created(peer(system, "alice-2", "bob")), owner},
		{"alice", "enrols in shop", created(peer("shop", "alice-1", "alice")), rbac},
		{"carl", "enrols in shop", created(peer("shop", "carl-1", "carl")), place},
		{"bob", "enrols himself", created(bobs), ok},
		{"alice", "renews her Peer", renewed(alices, `{"spec":{"renew":2}}`), ok},
		{"alice", "lowers renew", renewed(alices, `{"spec":{"renew":1}}`), "renew must not decrease"},
		{"alice", "tells where she can be reached", renewed(alices, `{"spec":{"candidates":["192.168.1.7:51820","203.0.113.9:40001"]}}`), ok},
		{"alice", "tells so elsewhere, and renews", renewed(alices, `{"spec":{"renew":3,"candidates":["192.168.2.8:51820"]}}`), ok},
		{"alice", "takes that back", renewed(alices, `{"spec":{"candidates":null}}`), ok},
		{"alice", "tells of seventeen places", renewed(alices, `{"spec":{"candidates":[`+strings.Repeat(`"192.168.1.7:51820",`, 16)+`"192.168.1.7:51820"]}}`), "Too many"},
		{"alice", "tells of a place that is a novel", renewed(alices, `{"spec":{"candidates":["`+strings.Repeat("x", 65)+`"]}}`), "Too long"},
		{"alice", "points bob's Peer at somebody", renewed(bobs, `{"spec":{"candidates":["192.0.2.1:53"]}}`), owner},
		{"carl", "points alice's Peer at somebody with every right on the CRD", renewed(alices, `{"spec":{"candidates":["192.0.2.1:53"]}}`), owner},
		{"gateway", "points alice's Peer at somebody", renewed(alices, `{"spec":{"candidates":["192.0.2.1:53"]}}`), rbac},
		{"alice", "moves the pods out of her network's way", renewed(alices, `{"spec":{"virtual":[{"real":"10.244.0.0/16","virtual":"100.64.0.0/16"}]}}`), ok},
		{"alice", "moves them elsewhere, and renews", renewed(alices, `{"spec":{"renew":4,"virtual":[{"real":"10.244.0.0/16","virtual":"100.65.0.0/16"}]}}`), ok},
		{"alice", "leaves them where they are", renewed(alices, `{"spec":{"virtual":null}}`), ok},
		{"alice", "moves half a prefix", renewed(alices, `{"spec":{"virtual":[{"real":"10.244.0.0/16"}]}}`), "spec.virtual[0].virtual: Required value"},
		{"alice", "moves seventeen prefixes", renewed(alices, `{"spec":{"virtual":[`+strings.Repeat(`{"real":"10.244.0.0/16","virtual":"100.64.0.0/16"},`, 16)+`{"real":"10.244.0.0/16","virtual":"100.64.0.0/16"}]}}`), "Too many"},
		{"alice", "moves a prefix that is a novel", renewed(alices, `{"spec":{"virtual":[{"real":"`+strings.Repeat("x", 44)+`","virtual":"100.64.0.0/16"}]}}`), "Too long"},
		{"alice", "moves the pods out of bob's way", renewed(bobs, `{"spec":{"virtual":[{"real":"10.244.0.0/16","virtual":"100.64.0.0/16"}]}}`), owner},
		{"gateway", "moves the pods out of alice's way", renewed(alices, `{"spec":{"virtual":[{"real":"10.244.0.0/16","virtual":"100.64.0.0/16"}]}}`), rbac},
		{"alice", "labels her Peer without renewing", renewed(alices, `{"metadata":{"labels":{"a":"b"}}}`), ok},
		{"alice", "changes her key", renewed(alices, `{"spec":{"publicKey":"`+strings.Replace(key, "h", "i", 1)+`"}}`), "only renew, candidates and virtual may change"},
		{"alice", "changes her lease", renewed(alices, `{"spec":{"leaseSeconds":900}}`), "only renew, candidates and virtual may change"},
		{"alice", "gives her Peer to bob", renewed(alices, `{"spec":{"user":"bob"}}`), "only renew, candidates and virtual may change"},
		{"alice", "renews bob's Peer", renewed(bobs, `{"spec":{"renew":2}}`), owner},
		{"alice", "takes bob's Peer", renewed(bobs, `{"spec":{"user":"alice"}}`), "only renew, candidates and virtual may change"},
		{"alice", "deletes bob's Peer", deleted(bobs), owner},
		{"alice", "reads her Peer", func(c client.Client) error { return c.Get(ctx, client.ObjectKeyFromObject(alices), &podnet.Peer{}) }, ok},
		{"alice", "lists all Peers", func(c client.Client) error { return c.List(ctx, &podnet.PeerList{}, client.InNamespace(system)) }, rbac},
		{"alice", "writes her status", status(alices, `{"status":{"address4":"198.18.9.9"}}`), rbac},
		{"carl", "writes a status with every right on the CRD", status(alices, `{"status":{"address4":"198.18.9.9"}}`), owner},
		{"alice", "exports to her phone", created(exported("alice-3", "alice", 24*3600)), ok},
		{"alice", "renews that", renewed(peer(system, "alice-3", ""), `{"spec":{"renew":2}}`), ok},
		{"alice", "exports for longer than a week", created(exported("alice-4", "alice", 7*24*3600+1)), "leaseSeconds"},
		{"carl", "has a lease of fifteen minutes without the right to export", created(exported("carl-3", "carl", 900)), ok},
		{"carl", "has one a second longer", created(exported("carl-4", "carl", 901)), deploy.ReasonPeer},
		{"alice", "goes beside the cluster", created(beyond("alice-5", "alice", []string{"10.20.0.0/16"}, []string{"corp.internal"})), deploy.ReasonPeer},
		{"alice", "asks for a name there alone", created(beyond("alice-5", "alice", nil, []string{"corp.internal"})), "alice may not also-domain corp.internal"},
		{"vera", "goes where she may", created(beyond("vera-1", "vera", []string{"10.20.0.0/16", "2001:db8::/32", "10.21.0.0/16"}, []string{"corp.internal"})), ok},
		{"vera", "renews that", renewed(peer(system, "vera-1", ""), `{"spec":{"renew":2}}`), ok},
		{"vera", "widens it", renewed(peer(system, "vera-1", ""), `{"spec":{"alsoRoutes":["10.0.0.0/8"]}}`), "only renew, candidates and virtual may change"},
		{"vera", "leaves it", renewed(peer(system, "vera-1", ""), `{"spec":{"alsoRoutes":null}}`), "only renew, candidates and virtual may change"},
		{"vera", "goes to a part of it that nobody has named", created(beyond("vera-2", "vera", []string{"10.20.1.0/24"}, nil)), "vera may not also-route 10.20.1.0/24"},
		{"vera", "goes too far at last", created(beyond("vera-2", "vera", []string{"10.20.0.0/16", "2001:db8::/32", "10.21.0.0/16", "10.22.0.0/16"}, nil)), "also-route 10.21.0.0/16 or 10.22.0.0/16"},
		{"vera", "asks for a domain below", created(beyond("vera-2", "vera", nil, []string{"db.corp.internal"})), deploy.ReasonPeer},
		{"vera", "takes the domain's right for a route", created(beyond("vera-2", "vera", []string{"corp.internal"}, nil)), deploy.ReasonPeer},
		{"olga", "asks for as much as the schema takes", created(beyond("olga-1", "olga", slices.Repeat([]string{"10.20.0.0/16"}, 8), slices.Repeat([]string{"corp.internal"}, 8))), ok},
		{"olga", "asks for one more", created(beyond("olga-2", "olga", slices.Repeat([]string{"10.20.0.0/16"}, 9), nil)), "Too many"},
		{"gateway", "tries to go there", dryRun(beyond("forged", gateway, []string{"192.0.2.0/24"}, nil)), deploy.ReasonPeer},
		{"gateway", "tries to ask there", dryRun(beyond("forged", gateway, nil, []string{"example.test"})), deploy.ReasonPeer},
		{"gateway", "tries to export", dryRun(exported("forged", gateway, 3600)), deploy.ReasonPeer},
		{"alice", "enrols nonsense for a key", created(&podnet.Peer{ObjectMeta: meta(system, "alice-3"), Spec: podnet.PeerSpec{User: "alice", PublicKey: "x", LeaseSeconds: 60, Renew: 1}}), "publicKey"},

		{"alice", "opens shop", created(access("shop", "alice-1", "alice", "")), ok},
		{"alice", "opens shop in bob's name", created(access("shop", "bob-1", "bob", "")), owner},
		{"alice", "opens pay", created(access("pay", "alice-1", "alice", "")), denied},
		{"carl", "opens pay with every right on the CRD", created(access("pay", "carl-1", "carl", "")), denied},
		{"alice", "opens the gateway's namespace", created(access(system, "alice-1", "alice", "")), denied},
		{"alice", "opens the cluster", created(access(system, "alice-all", "alice", podnet.ScopeCluster)), denied},
		{"alice", "opens the cluster from shop", created(access("shop", "alice-all", "alice", podnet.ScopeCluster)), denied},
		{"olga", "opens the cluster", created(access(system, "olga-all", "olga", podnet.ScopeCluster)), ok},
		{"olga", "opens the cluster from shop", created(access("shop", "olga-all", "olga", podnet.ScopeCluster)), denied},
		{"alice", "opens with a scope nobody knows", created(access("shop", "alice-2", "alice", "Universe")), "Unsupported value"},
		{"alice", "widens her Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"scope":"Cluster"}}`), "only renew may change"},
		{"alice", "renews her Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"renew":2}}`), ok},
		{"carl", "renews alice's Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"renew":3}}`), "PODNET-"}, // both policies object
		{"olga", "renews alice's Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"renew":3}}`), owner},
		{"carl", "writes alice's Access' status", status(access("shop", "alice-1", "", ""), `{"status":{"observedRenew":9}}`), owner},
		{"lead", "renews alice's Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"renew":3}}`), "PODNET-"},

		{"gateway", "writes a Peer's status", status(alices, `{"status":{"address4":"198.18.0.2","gateways":[{"pod":"podnet-gateway-0","podUID":"u","publicKey":"k","streamPort":51821,"candidates":["203.0.113.1:31820"],"nat":"endpoint-independent","draining":true}]}}`), ok},
		{"gateway", "tells of a NAT nobody knows", status(alices, `{"status":{"gateways":[{"pod":"podnet-gateway-0","podUID":"u","publicKey":"k","streamPort":51821,"nat":"maybe"}]}}`), "Unsupported value"},
		{"gateway", "writes an Access' status", status(access("shop", "alice-1", "", ""), `{"status":{"observedRenew":2}}`), ok},
		{"gateway", "enrols alice", created(peer(system, "forged", "alice")), owner},
		{"gateway", "opens shop for itself", created(access("shop", "forged", gateway, "")), rbac},
		{"gateway", "opens its own namespace", created(access(system, "forged", gateway, "")), "PODNET-"}, // both policies object
		{"gateway", "opens the cluster", created(access(system, "forged", gateway, podnet.ScopeCluster)), "PODNET-"},
		{"gateway", "enrols itself", created(peer(system, "forged", gateway)), owner},
		{"gateway", "tries to enrol alice", dryRun(peer(system, "forged", "alice")), owner},
		{"gateway", "tries to open the cluster", dryRun(access(system, "forged", gateway, podnet.ScopeCluster)), denied},
		{"gateway", "renews alice's Peer", renewed(alices, `{"spec":{"renew":9}}`), rbac},
		{"gateway", "reads Secrets", func(c client.Client) error { return c.List(ctx, &corev1.SecretList{}, client.InNamespace(system)) }, rbac},
		{"gateway", "reads Pods", func(c client.Client) error { return c.List(ctx, &corev1.PodList{}, client.InNamespace(system)) }, rbac},
		{"gateway", "lists Services", func(c client.Client) error { return c.List(ctx, &corev1.ServiceList{}) }, ok},
		{"gateway", "lists Accesses", func(c client.Client) error { return c.List(ctx, &podnet.AccessList{}) }, ok},
		{"gateway", "deletes bob's Peer", deleted(bobs), ok},

		{"gc", "takes a finalizer off alice's Access", renewed(access("shop", "alice-1", "", ""), `{"metadata":{"finalizers":[]}}`), ok},
		{"gc", "renews alice's Access", renewed(access("shop", "alice-1", "", ""), `{"spec":{"renew":9}}`), "PODNET-"},
		{"alice", "opens doomed", created(access("doomed", "alice-1", "alice", "")), ok},
		{"lead", "revokes in doomed", deleted(access("doomed", "alice-1", "", "")), owner},
		{"nscleaner", "empties a namespace that is being deleted", func(c client.Client) error {
			return c.DeleteAllOf(ctx, &podnet.Access{}, client.InNamespace("doomed"))
		}, ok},
		{"carl", "empties shop", func(c client.Client) error { return c.DeleteAllOf(ctx, &podnet.Access{}, client.InNamespace("shop")) }, owner},
		{"lead", "revokes alice's Access", deleted(access("shop", "alice-1", "", "")), ok},
		{"alice", "deletes her Peer", deleted(alices), ok},
	}
	for _, r := range rows {
		t.Run(r.who+" "+r.what, func(t *testing.T) { expect(t, r.do(who[r.who]), r.want) })
	}

	t.Run("alice loses her permission and cannot renew", func(t *testing.T) {
		expect(t, created(access("shop", "alice-9", "alice", ""))(who["alice"]), ok)
		// She keeps every right on Accesses (podnet-developer), and loses port-forward.
		must(admin.Delete(ctx, &rbacv1.RoleBinding{ObjectMeta: meta("shop", "alice")}))
		n := 1
		apiserver.Eventually(t, 10*time.Second, "the renewal is refused", func() error {
			n++
			err := renewed(access("shop", "alice-9", "", ""), fmt.Sprintf(`{"spec":{"renew":%d}}`, n))(who["alice"])
			if err == nil || !strings.Contains(err.Error(), denied) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		expect(t, deleted(access("shop", "alice-9", "", ""))(who["alice"]), ok)
	})

	t.Run("the gateway's pod passes Pod Security restricted", func(t *testing.T) {
		var set appsv1.StatefulSet
		must(admin.Get(ctx, types.NamespacedName{Namespace: system, Name: deploy.StatefulSetName}, &set))
		pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
		pod.Namespace, pod.Name = system, "podnet-gateway-0"
		expect(t, admin.Create(ctx, pod, client.DryRunAll), ok)
		pod.Spec.Containers[0].SecurityContext.Capabilities = nil
		expect(t, admin.Create(ctx, pod, client.DryRunAll), "violates PodSecurity")
	})
}

// TestApplyTwice installs over an install: nothing may be refused or change.
func TestApplyTwice(t *testing.T) {
	s := apiserver.Start(t)
	o := deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", NodePort: 31820, Replicas: 2}
	s.Install(t, o)
	var before appsv1.StatefulSet
	name := types.NamespacedName{Namespace: system, Name: deploy.StatefulSetName}
	if err := s.Admin(t).Get(ctx, name, &before); err != nil {
		t.Fatal(err)
	}
	s.Install(t, o)
	var after appsv1.StatefulSet
	if err := s.Admin(t).Get(ctx, name, &after); err != nil {
		t.Fatal(err)
	}
	if before.Generation != after.Generation {
		t.Errorf("the second install changed the StatefulSet: generation %d, then %d", before.Generation, after.Generation)
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("allowed, want a refusal with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("refused with %q, want %q in it", err, want)
	case want == deploy.ReasonOwner || want == deploy.ReasonPeer || want == deploy.ReasonAccess || want == deploy.ReasonNamespace || want == deploy.ReasonSteer || want == deploy.ReasonServices:
		if !apierrors.IsForbidden(err) {
			t.Errorf("%v is not Forbidden", err)
		}
	}
}
