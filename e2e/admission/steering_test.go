package admission

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/steer/control"
)

// rule is one that nothing is wrong with, for pod cart-0.
func rule(namespace, name, user string, changes ...func(*podnet.SteeringRule)) *podnet.SteeringRule {
	r := &podnet.SteeringRule{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{podnet.LabelRule: "cart"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "cart-0", UID: "uid-cart-0"}}},
		Spec: podnet.SteeringRuleSpec{User: user, Peer: user + "-1", Renew: 1, Rule: "cart", Target: "deploy/cart", Pod: "cart-0", PodUID: "uid-cart-0",
			Port: 8080, RelayPort: 20000, Local: "3000", Matches: []podnet.SteeringMatch{{Headers: []podnet.SteeringCondition{{Name: "x-user", Value: user}}}}},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func spec(change func(*podnet.SteeringRuleSpec)) func(*podnet.SteeringRule) {
	return func(r *podnet.SteeringRule) { change(&r.Spec) }
}

func owner(change func(*metav1.OwnerReference)) func(*podnet.SteeringRule) {
	return func(r *podnet.SteeringRule) { change(&r.OwnerReferences[0]) }
}

// leaving makes a rule of egress, which has no traffic to speak of.
var leaving = spec(func(s *podnet.SteeringRuleSpec) {
	s.Mode, s.Port, s.RelayPort, s.Local, s.Matches = podnet.SteeringEgress, 0, 0, "", nil
})

// wordy fills the spec with n matches of as many conditions as they may have,
// each as long as it may be.
func wordy(n int) func(*podnet.SteeringRule) {
	return spec(func(s *podnet.SteeringRuleSpec) {
		long := podnet.SteeringCondition{Name: strings.Repeat("n", 1024), Value: strings.Repeat("v", 1024)}
		m := podnet.SteeringMatch{}
		for range 32 {
			m.Headers, m.Query = append(m.Headers, long), append(m.Query, long)
		}
		s.Matches = nil
		for range n {
			s.Matches = append(s.Matches, m)
		}
	})
}

// injected is how a laptop puts an agent into a pod.
func injected(pod string, dry ...client.SubResourcePatchOption) func(client.Client) error {
	return func(c client.Client) error {
		patch := `{"spec":{"ephemeralContainers":[{"name":"podnet-agent-x7k2p","image":"example.org/agent:1","securityContext":{
			"runAsUser":0,"runAsNonRoot":false,"runAsGroup":1234567,"capabilities":{"drop":["ALL"],"add":["NET_ADMIN"]},
			"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"seccompProfile":{"type":"RuntimeDefault"}}}]}}`
		return c.SubResource("ephemeralcontainers").Patch(ctx, &corev1.Pod{ObjectMeta: meta("shop", pod)}, client.RawPatch(types.StrategicMergePatchType, []byte(patch)), dry...)
	}
}

// TestWhoMaySteer is one story: the rows build on each other.
//
// alice may steer in shop and doomed; bob may open shop and no more; dora may
// patch the ephemeral containers of one pod, cart-0, beside having every right
// on our objects, which is all that carl has; lead may revoke in shop.
func TestWhoMaySteer(t *testing.T) {
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
	bind := func(namespace, name string, subject rbacv1.Subject, roles ...string) {
		subject.APIGroup = rbacv1.GroupName
		for _, r := range roles {
			ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: r}
			if namespace == "" {
				must(admin.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", name+"-"+r), Subjects: []rbacv1.Subject{subject}, RoleRef: ref}))
			} else {
				must(admin.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta(namespace, name+"-"+r), Subjects: []rbacv1.Subject{subject}, RoleRef: ref}))
			}
		}
	}
	user := func(name string) rbacv1.Subject { return rbacv1.Subject{Kind: "User", Name: name} }
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "all-of-podnet"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"podnet.dev"}, Resources: []string{"steeringrules", "steeringrules/status"},
		Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}}}}))
	must(admin.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta("", "into-cart-0"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods/ephemeralcontainers"},
		ResourceNames: []string{"cart-0"}, Verbs: []string{"patch"}}}}))
	bind("shop", "alice", user("alice"), "podnet-user", "podnet-steer")
	bind("doomed", "alice", user("alice"), "podnet-user", "podnet-steer")
	bind("shop", "bob", user("bob"), "podnet-user")
	bind("", "carl", user("carl"), "all-of-podnet")
	bind("", "dora", user("dora"), "all-of-podnet")
	bind("shop", "dora", user("dora"), "into-cart-0")
	bind("shop", "lead", user("lead"), "podnet-admin")
	bind("", "housekeepers", rbacv1.Subject{Kind: "Group", Name: "housekeepers"}, "all-of-podnet")

	must(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta("shop", "default")}))
	for _, pod := range []string{"cart-0", "cart-1"} {
		must(admin.Create(ctx, &corev1.Pod{ObjectMeta: meta("shop", pod), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.org/cart:1"}}}}))
	}

	who := map[string]client.Client{
		"alice":     s.As(t, "alice"),
		"bob":       s.As(t, "bob"),
		"carl":      s.As(t, "carl"),
		"dora":      s.As(t, "dora"),
		"edna":      s.As(t, "edna", "dev"),
		"lead":      s.As(t, "lead", "dev"),
		"gateway":   s.As(t, gateway, "system:serviceaccounts"),
		"nscleaner": s.As(t, "system:serviceaccount:kube-system:namespace-controller", "housekeepers"),
		"gc":        s.As(t, "system:serviceaccount:kube-system:generic-garbage-collector", "housekeepers"),
	}
	apiserver.Eventually(t, 10*time.Second, "RoleBindings are seen", func() error {
		return dryRun(rule("shop", "probe", "alice"))(who["alice"])
	})
	apiserver.Eventually(t, 10*time.Second, "the policy is seen", func() error {
		if err := dryRun(rule("shop", "probe", "bob"))(who["bob"]); err == nil || !strings.Contains(err.Error(), deploy.ReasonSteer) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})

	const (
		ok     = ""
		rbac   = "cannot"
		pinned = deploy.ReasonOwner
		steer  = deploy.ReasonSteer
		fixed  = "only renew and agentKey may change"
	)
	alices, doras := rule("shop", "alice-cart", "alice"), rule("shop", "dora-cart", "dora", spec(func(s *podnet.SteeringRuleSpec) { s.Matches = nil }))
	big := rule("shop", "alice-big", "alice", wordy(10)) // 1.3 MiB; etcd takes no more than 1.5
	yes := true
	rows := []struct {
		who, what string
		do        func(client.Client) error
		want      string // "" allowed, else a word of the refusal
	}{
		{"alice", "asks whether an agent may be put into cart-0", injected("cart-0", client.DryRunAll), ok},
		{"alice", "puts an agent into cart-0", injected("cart-0"), ok},
		{"bob", "puts an agent into cart-0", injected("cart-0"), rbac},
		{"alice", "lists pods", func(c client.Client) error { return c.List(ctx, &corev1.PodList{}, client.InNamespace("shop")) }, ok},
		{"alice", "changes the pod itself", renewed(&corev1.Pod{ObjectMeta: meta("shop", "cart-0")}, `{"metadata":{"labels":{"a":"b"}}}`), rbac},

		{"alice", "steers cart-0", created(alices), ok},
		{"alice", "steers cart-0 in bob's name", created(rule("shop", "bob-cart", "bob")), pinned},
		{"alice", "steers in pay", created(rule("pay", "alice-cart", "alice")), rbac},
		{"bob", "steers cart-0 with the right to open shop alone", created(rule("shop", "bob-cart", "bob")), steer},
		{"edna", "steers cart-0 with podnet-developer alone", created(rule("shop", "edna-cart", "edna")), steer},
		{"carl", "steers cart-0 with every right on the CRD", created(rule("shop", "carl-cart", "carl")), steer},
		{"carl", "steers in pay", created(rule("pay", "carl-cart", "carl")), steer},
		{"dora", "steers cart-0, which she may patch", created(doras), ok},
		{"dora", "steers cart-1, which she may not", created(rule("shop", "dora-cart-1", "dora",
			spec(func(s *podnet.SteeringRuleSpec) { s.Pod, s.PodUID = "cart-1", "uid-cart-1" }),
			owner(func(o *metav1.OwnerReference) { o.Name, o.UID = "cart-1", "uid-cart-1" }))), steer},
		{"dora", "steers the cart-0 of pay", created(rule("pay", "dora-cart", "dora")), steer},

		{"alice", "writes a rule that no pod owns", created(rule("shop", "alice-2", "alice", func(r *podnet.SteeringRule) { r.OwnerReferences = nil })), steer},
		{"alice", "has it owned by another pod", created(rule("shop", "alice-2", "alice", owner(func(o *metav1.OwnerReference) { o.Name = "cart-1" }))), steer},
		{"alice", "has it owned by a former cart-0", created(rule("shop", "alice-2", "alice", owner(func(o *metav1.OwnerReference) { o.UID = "uid-of-old" }))), steer},
		{"alice", "has it owned by a Service", created(rule("shop", "alice-2", "alice", owner(func(o *metav1.OwnerReference) { o.Kind = "Service" }))), steer},
		{"alice", "has it owned by another group's Pod", created(rule("shop", "alice-2", "alice", owner(func(o *metav1.OwnerReference) { o.APIVersion = "example.org/v1" }))), steer},
		{"alice", "has it hold up the pod's deletion", created(rule("shop", "alice-2", "alice", owner(func(o *metav1.OwnerReference) { o.BlockOwnerDeletion = &yes }))), steer},
		{"alice", "has it owned by two", created(rule("shop", "alice-2", "alice", func(r *podnet.SteeringRule) {
			r.OwnerReferences = append(r.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "cart-1", UID: "uid-cart-1"})
		})), steer},
		{"alice", "leaves the label out", created(rule("shop", "alice-2", "alice", func(r *podnet.SteeringRule) { r.Labels = nil })), steer},
		{"alice", "labels it as another rule's", created(rule("shop", "alice-2", "alice", func(r *podnet.SteeringRule) { r.Labels[podnet.LabelRule] = "web" })), steer},

		{"alice", "steers a whole port of UDP", created(rule("shop", "alice-udp", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.Protocol, s.Matches = "udp", nil }))), ok},
		{"alice", "steers requests in UDP", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.Protocol = "udp" }))), "udp is steered as a whole"},
		{"alice", "wants the client's address with UDP", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) {
			s.Protocol, s.Matches, s.ClientAddress = "udp", nil, "proxy"
		}))), "udp takes no clientAddress"},
		{"alice", "wants a header on a whole port", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.ClientAddress, s.Matches = "header", nil }))), "clientAddress header needs matches"},
		{"alice", "wants a header on requests", dryRun(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.ClientAddress = "header" }))), ok},
		{"alice", "takes podnet's own port", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.RelayPort = control.LivePort }))), "podnet's own"},
		{"alice", "takes a low port", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.RelayPort = 80 }))), "relayPort"},
		{"alice", "invents a mode", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.Mode = "both" }))), "Unsupported value"},
		{"alice", "matches seventeen ways", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.Matches = make([]podnet.SteeringMatch, 17) }))), "Too many"},
		{"alice", "steers port 0", created(rule("shop", "alice-2", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.Port = 0 }))), "port must be above 0"},
		{"alice", "sends as cart-0", created(rule("shop", "alice-out", "alice", leaving)), ok},
		{"bob", "sends as cart-0 with the right to open shop alone", created(rule("shop", "bob-out", "bob", leaving)), steer},
		{"alice", "sends as cart-0 from a port", created(rule("shop", "alice-2", "alice", leaving, spec(func(s *podnet.SteeringRuleSpec) { s.Port = 80 }))), "egress takes no port"},
		{"alice", "sends as cart-0 to a relay port", created(rule("shop", "alice-2", "alice", leaving, spec(func(s *podnet.SteeringRuleSpec) { s.RelayPort = 20000 }))), "egress takes no port"},
		{"alice", "sends as cart-0 what matches", created(rule("shop", "alice-2", "alice", leaving, spec(func(s *podnet.SteeringRuleSpec) { s.Matches = []podnet.SteeringMatch{{Path: "/"}} }))), "egress takes no port"},
		{"alice", "sends as cart-0 or the app", created(rule("shop", "alice-2", "alice", leaving, spec(func(s *podnet.SteeringRuleSpec) { s.OnError = "app" }))), "egress takes no port"},
		{"alice", "writes a rule as long as it may be", created(big), ok},
		{"alice", "renews it", renewed(big, `{"spec":{"renew":2}}`), ok},

		{"alice", "renews her rule", renewed(alices, `{"spec":{"renew":2}}`), ok},
		{"alice", "lowers renew", renewed(alices, `{"spec":{"renew":1}}`), "renew must not decrease"},
		{"alice", "writes the agent's key", renewed(alices, `{"spec":{"agentKey":"`+key+`"}}`), ok},
		{"alice", "writes another one, and renews", renewed(alices, `{"spec":{"renew":3,"agentKey":"`+strings.Replace(key, "h", "i", 1)+`"}}`), ok},
		{"alice", "writes nonsense for a key", renewed(alices, `{"spec":{"agentKey":"x"}}`), "agentKey"},
		{"alice", "takes the owner off", renewed(alices, `{"metadata":{"ownerReferences":null}}`), steer},
		{"alice", "labels it anew", renewed(alices, `{"metadata":{"labels":{"podnet.dev/rule":"web"}}}`), steer},
		{"alice", "labels it besides", renewed(alices, `{"metadata":{"labels":{"a":"b"}}}`), ok},
		{"dora", "gives her whole port matches", renewed(doras, `{"spec":{"matches":[{"path":"/"}]}}`), fixed},
		{"alice", "renews dora's rule", renewed(doras, `{"spec":{"renew":2}}`), pinned},
		{"dora", "renews alice's rule", renewed(alices, `{"spec":{"renew":9}}`), pinned},
		{"dora", "gives alice's rule another agent", renewed(alices, `{"spec":{"agentKey":""}}`), pinned},
		{"carl", "renews alice's rule", renewed(alices, `{"spec":{"renew":9}}`), "PODNET-"}, // both policies object
		{"bob", "deletes alice's rule", deleted(alices), pinned},
		{"alice", "writes its status", status(alices, `{"status":{"matched":9}}`), rbac},
		{"carl", "writes its status with every right on the CRD", status(alices, `{"status":{"matched":9}}`), pinned},
		{"bob", "sees who steers", func(c client.Client) error {
			return c.List(ctx, &podnet.SteeringRuleList{}, client.InNamespace("shop"), client.MatchingLabels{podnet.LabelRule: "cart"})
		}, ok},
		{"bob", "sees who steers in pay", func(c client.Client) error { return c.List(ctx, &podnet.SteeringRuleList{}, client.InNamespace("pay")) }, rbac},

		{"gateway", "lists the rules of all namespaces", func(c client.Client) error { return c.List(ctx, &podnet.SteeringRuleList{}) }, ok},
		{"gateway", "writes a status", status(alices, `{"status":{"observedRenew":3,"agent":{"publicKey":"`+key+`","generation":4},"matched":12,"failed":1,"passed":99,"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`), ok},
		{"gateway", "renews alice's rule", renewed(alices, `{"spec":{"renew":9}}`), rbac},
		{"gateway", "steers in its own namespace", created(rule(system, "forged", gateway)), "PODNET-"}, // both policies object
		{"gateway", "tries to steer", dryRun(rule(system, "forged", gateway)), steer},
		{"gateway", "tries to steer for alice", dryRun(rule(system, "forged", "alice")), "PODNET-"},
		{"gateway", "steers in shop", created(rule("shop", "forged", gateway)), rbac},
		{"gateway", "puts an agent into cart-0", injected("cart-0"), rbac},

		{"gc", "orphans alice's rule", renewed(alices, `{"metadata":{"ownerReferences":null}}`), ok},
		{"alice", "renews a rule that was orphaned", renewed(alices, `{"spec":{"renew":10}}`), steer},
		{"gc", "renews alice's rule", renewed(alices, `{"spec":{"renew":10}}`), "PODNET-"},
		{"gc", "orphans the longest rule", renewed(big, `{"metadata":{"ownerReferences":null}}`), ok},
		{"alice", "steers in doomed", created(rule("doomed", "alice-cart", "alice")), ok},
		{"lead", "revokes in doomed", deleted(rule("doomed", "alice-cart", "")), pinned},
		{"nscleaner", "empties a namespace that is being deleted", func(c client.Client) error {
			return c.DeleteAllOf(ctx, &podnet.SteeringRule{}, client.InNamespace("doomed"))
		}, ok},
		{"carl", "empties shop", func(c client.Client) error {
			return c.DeleteAllOf(ctx, &podnet.SteeringRule{}, client.InNamespace("shop"))
		}, pinned},
		{"lead", "revokes alice's rule", deleted(alices), ok},
		{"gateway", "deletes dora's rule", deleted(doras), ok},
		{"gc", "deletes a rule whose pod is gone", deleted(big), ok},
	}
	for _, r := range rows {
		t.Run(r.who+" "+r.what, func(t *testing.T) { expect(t, r.do(who[r.who]), r.want) })
	}

	t.Run("nothing else of a rule may change", func(t *testing.T) {
		r := rule("shop", "alice-fixed", "alice", spec(func(s *podnet.SteeringRuleSpec) { s.OnError, s.ClientAddress = "app", "proxy" }))
		expect(t, created(r)(who["alice"]), ok)
		for _, change := range []string{`"user":"bob"`, `"peer":"alice-2"`, `"rule":"web"`, `"target":"deploy/web"`, `"pod":"cart-1"`, `"podUID":"u"`, `"port":81`, `"protocol":"udp"`, `"mode":"mirror"`,
			`"matches":[{"path":"/"}]`, `"matches":null`, `"onError":""`, `"clientAddress":""`, `"relayPort":20001`, `"local":"3001"`} {
			t.Run(change, func(t *testing.T) { expect(t, renewed(r, `{"spec":{`+change+`}}`)(who["alice"]), fixed) })
		}
	})

	t.Run("alice loses her permission and cannot renew", func(t *testing.T) {
		expect(t, created(rule("shop", "alice-9", "alice"))(who["alice"]), ok)
		must(admin.Delete(ctx, &rbacv1.RoleBinding{ObjectMeta: meta("shop", "alice-podnet-steer")}))
		n := 1
		apiserver.Eventually(t, 10*time.Second, "the renewal is refused", func() error {
			n++
			err := renewed(rule("shop", "alice-9", ""), fmt.Sprintf(`{"spec":{"renew":%d}}`, n))(who["alice"])
			if err == nil || !strings.Contains(err.Error(), steer) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
		expect(t, deleted(rule("shop", "alice-9", ""))(who["alice"]), ok)
	})
}
