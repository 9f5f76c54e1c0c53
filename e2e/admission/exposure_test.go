package admission

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/steer/control"
)

// exposed is an Exposure that nothing is wrong with.
func exposed(namespace, name, user string, changes ...func(*podnet.ExposureSpec)) *podnet.Exposure {
	e := &podnet.Exposure{ObjectMeta: meta(namespace, name),
		Spec: podnet.ExposureSpec{User: user, Peer: user + "-1", Renew: 1, Local: "3000", Ports: []podnet.ExposurePort{{Port: 80, Protocol: podnet.ExposureTCP, RelayPort: 20000}}}}
	for _, change := range changes {
		change(&e.Spec)
	}
	return e
}

// ports has the exposure have n of them.
func ports(n int) func(*podnet.ExposureSpec) {
	return func(s *podnet.ExposureSpec) {
		s.Ports = nil
		for i := range n {
			s.Ports = append(s.Ports, podnet.ExposurePort{Port: int32(80 + i), Protocol: podnet.ExposureTCP, RelayPort: 20000})
		}
	}
}

func firstPort(change func(*podnet.ExposurePort)) func(*podnet.ExposureSpec) {
	return func(s *podnet.ExposureSpec) { change(&s.Ports[0]) }
}

// TestWhoMayExpose is one story: the rows build on each other.
//
// alice may use podnet and create Services in shop; bob may use podnet there and
// no more; carl has every right on our objects and none else; edna may what
// podnet-developer gives; lead may revoke in shop.
func TestWhoMayExpose(t *testing.T) {
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
	bind := func(namespace, name string, kind, role string) {
		subject := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}}
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
		if namespace == "" {
			must(admin.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", name+"-"+role), Subjects: subject, RoleRef: ref}))
		} else {
			must(admin.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta(namespace, name+"-"+role), Subjects: subject, RoleRef: ref}))
		}
	}
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "all-of-podnet"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"exposures", "exposures/status"},
		Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}}}}))
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "services"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"create"}}}}))
	for _, ns := range []string{"shop", "doomed"} {
		bind(ns, "alice", "User", "podnet-user")
		bind(ns, "alice", "User", "services")
	}
	bind("shop", "bob", "User", "podnet-user")
	bind("", "carl", "User", "all-of-podnet")
	bind("shop", "lead", "User", "podnet-admin")
	bind("", "housekeepers", "Group", "all-of-podnet")

	who := map[string]client.Client{
		"alice":     s.As(t, "alice"),
		"bob":       s.As(t, "bob"),
		"carl":      s.As(t, "carl"),
		"edna":      s.As(t, "edna", "dev"),
		"lead":      s.As(t, "lead"),
		"gateway":   s.As(t, gateway, "system:serviceaccounts"),
		"nscleaner": s.As(t, "system:serviceaccount:kube-system:namespace-controller", "housekeepers"),
		"gc":        s.As(t, "system:serviceaccount:kube-system:generic-garbage-collector", "housekeepers"),
	}
	apiserver.Eventually(t, 10*time.Second, "RoleBindings are seen", func() error { return dryRun(exposed("shop", "probe", "alice"))(who["alice"]) })
	apiserver.Eventually(t, 10*time.Second, "the policy is seen", func() error {
		if err := dryRun(exposed("shop", "probe", "bob"))(who["bob"]); err == nil || !strings.Contains(err.Error(), deploy.ReasonExpose) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})

	const (
		ok     = ""
		rbac   = "cannot"
		pinned = deploy.ReasonOwner
		expose = deploy.ReasonExpose
		fixed  = "only renew may change"
	)
	service := func(namespace string) *corev1.Service {
		return &corev1.Service{ObjectMeta: meta(namespace, "podnet-x-0123456789ab"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	slice := func(namespace string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: meta(namespace, "podnet-x-0123456789ab-podnet-gateway-0-ipv4"), AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.7"}}}}
	}
	alices := exposed("shop", "my-api", "alice")
	rows := []struct {
		who, what string
		do        func(client.Client) error
		want      string // "" allowed, else a word of the refusal
	}{
		{"alice", "exposes a port in shop", created(alices), ok},
		{"alice", "exposes one in bob's name", created(exposed("shop", "bobs", "bob")), pinned},
		{"alice", "exposes one in pay", created(exposed("pay", "my-api", "alice")), rbac},
		{"bob", "exposes one and may not create Services", created(exposed("shop", "bobs", "bob")), expose},
		{"edna", "exposes one with podnet-developer alone", created(exposed("shop", "ednas", "edna")), expose},
		{"carl", "exposes one with every right on the CRD", created(exposed("shop", "carls", "carl")), expose},
		{"carl", "exposes one in pay", created(exposed("pay", "carls", "carl")), expose},

		{"alice", "gives it a name that no Service has", created(exposed("shop", "my.api", "alice")), "a DNS label"},
		{"alice", "begins its name with a digit", created(exposed("shop", "1api", "alice")), "a DNS label"},
		{"alice", "makes its name too long", created(exposed("shop", strings.Repeat("a", 64), "alice")), "a DNS label"},
		{"alice", "makes its name as long as may be", dryRun(exposed("shop", strings.Repeat("a", 63), "alice")), ok},
		{"alice", "exposes no port", created(exposed("shop", "none", "alice", ports(0))), "spec.ports"},
		{"alice", "exposes eight ports", dryRun(exposed("shop", "eight", "alice", ports(8))), ok},
		{"alice", "exposes nine ports", created(exposed("shop", "nine", "alice", ports(9))), "Too many"},
		{"alice", "exposes one port twice", created(exposed("shop", "twice", "alice", ports(2), func(s *podnet.ExposureSpec) { s.Ports[1].Port = 80 })), "Duplicate value"},
		{"alice", "exposes one port of both protocols", dryRun(exposed("shop", "both", "alice", ports(2), func(s *podnet.ExposureSpec) {
			s.Ports[1] = podnet.ExposurePort{Port: 80, Protocol: podnet.ExposureUDP, RelayPort: 20001}
		})), ok},
		{"alice", "takes podnet's own port", created(exposed("shop", "own", "alice", firstPort(func(p *podnet.ExposurePort) { p.RelayPort = control.LivePort }))), "podnet's own"},
		{"alice", "takes a low port", created(exposed("shop", "low", "alice", firstPort(func(p *podnet.ExposurePort) { p.RelayPort = 80 }))), "relayPort"},
		{"alice", "invents a protocol", created(exposed("shop", "sctp", "alice", firstPort(func(p *podnet.ExposurePort) { p.Protocol = "sctp" }))), "Unsupported value"},

		{"alice", "renews it", renewed(alices, `{"spec":{"renew":2}}`), ok},
		{"alice", "lowers renew", renewed(alices, `{"spec":{"renew":1}}`), "renew must not decrease"},
		{"bob", "renews it", renewed(alices, `{"spec":{"renew":9}}`), "PODNET-"}, // both policies object
		{"alice", "writes its status", status(alices, `{"status":{"host":"x"}}`), rbac},
		{"carl", "writes its status with every right on the CRD", status(alices, `{"status":{"host":"x"}}`), pinned},
		{"bob", "deletes it", deleted(alices), pinned},
		{"bob", "sees who exposes what", func(c client.Client) error { return c.List(ctx, &podnet.ExposureList{}, client.InNamespace("shop")) }, ok},

		{"gateway", "lists the exposures of all namespaces", func(c client.Client) error { return c.List(ctx, &podnet.ExposureList{}) }, ok},
		{"gateway", "writes a status", status(alices, `{"status":{"observedRenew":2,"host":"x","conditions":[{"type":"Ready","status":"True","reason":"Admitted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`), ok},
		{"gateway", "renews it", renewed(alices, `{"spec":{"renew":9}}`), rbac},
		{"gateway", "exposes in its own namespace", created(exposed(system, "forged", gateway)), "PODNET-"}, // both policies object
		{"gateway", "tries to expose, where it may create Services", dryRun(exposed(system, "forged", gateway)), expose},
		{"gateway", "exposes in shop", created(exposed("shop", "forged", gateway)), rbac},
		{"gateway", "creates a Service in its own namespace", created(service(system)), ok},
		{"gateway", "creates a slice there", created(slice(system)), ok},
		{"gateway", "changes the slice", renewed(slice(system), `{"metadata":{"labels":{"a":"b"}}}`), ok},
		{"gateway", "changes the Service", renewed(service(system), `{"metadata":{"labels":{"a":"b"}}}`), ok},
		{"gateway", "deletes the slice", deleted(slice(system)), ok},
		{"gateway", "deletes the Service", deleted(service(system)), ok},
		{"gateway", "creates a Service in shop", created(service("shop")), rbac},
		{"gateway", "creates a slice in shop", created(slice("shop")), rbac},

		{"gc", "orphans it", renewed(alices, `{"metadata":{"ownerReferences":null,"labels":{"a":"b"}}}`), ok},
		{"gc", "renews it", renewed(alices, `{"spec":{"renew":10}}`), "PODNET-"},
		{"alice", "exposes in doomed", created(exposed("doomed", "my-api", "alice")), ok},
		{"lead", "revokes in doomed", deleted(exposed("doomed", "my-api", "")), rbac},
		{"nscleaner", "empties a namespace that is being deleted", func(c client.Client) error {
			return c.DeleteAllOf(ctx, &podnet.Exposure{}, client.InNamespace("doomed"))
		}, ok},
		{"lead", "revokes alice's", deleted(alices), ok},
		{"alice", "exposes it again", created(exposed("shop", "my-api", "alice")), ok},
		{"gateway", "deletes it", deleted(exposed("shop", "my-api", "")), ok},
	}
	for _, r := range rows {
		t.Run(r.who+" "+r.what, func(t *testing.T) { expect(t, r.do(who[r.who]), r.want) })
	}

	t.Run("nothing else of it may change", func(t *testing.T) {
		e := exposed("shop", "fixed", "alice")
		expect(t, created(e)(who["alice"]), ok)
		for _, change := range []string{`"user":"bob"`, `"peer":"alice-2"`, `"local":"3001"`, `"ports":[{"port":81,"relayPort":20000}]`,
			`"ports":[{"port":80,"relayPort":20001}]`, `"ports":[{"port":80,"protocol":"udp","relayPort":20000}]`} {
			t.Run(change, func(t *testing.T) { expect(t, renewed(e, `{"spec":{`+change+`}}`)(who["alice"]), fixed) })
		}
	})

	t.Run("alice loses her permission and cannot renew", func(t *testing.T) {
		expect(t, created(exposed("shop", "last", "alice"))(who["alice"]), ok)
		must(admin.Delete(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice-services"}}))
		n := 1
		apiserver.Eventually(t, 10*time.Second, "the renewal is refused", func() error {
			n++
			err := renewed(exposed("shop", "last", ""), fmt.Sprintf(`{"spec":{"renew":%d}}`, n))(who["alice"])
			if err == nil || !strings.Contains(err.Error(), expose) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		expect(t, deleted(exposed("shop", "last", ""))(who["alice"]), ok)
	})
}
