package admission

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"

	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// reviewed has every verb of every role; the tests of package deploy keep it true, and
// say what the gateway must never have.
const reviewed = "../../deploy/testdata/verbs.txt"

// everybodys is what whoever has credentials may do: ask who and what they are
// (Kubernetes' role system:basic-user).
var everybodys = []string{
	"selfsubjectaccessreviews.authorization.k8s.io: create",
	"selfsubjectreviews.authentication.k8s.io: create",
	"selfsubjectrulesreviews.authorization.k8s.io: create",
}

// TestWhatTheGatewayMayDo asks the API server for the rights of the gateway's account,
// as `kubectl auth can-i --list` does: they are those that were reviewed, and no others.
func TestWhatTheGatewayMayDo(t *testing.T) {
	s := apiserver.Start(t)
	if err := s.Admin(t).Create(ctx, &corev1.Namespace{ObjectMeta: meta("", "shop")}); err != nil {
		t.Fatal(err)
	}
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Groups: []string{"dev"}})
	c := s.As(t, gateway, "system:serviceaccounts", "system:serviceaccounts:"+system)
	for namespace, roles := range map[string][]string{
		system:        {"ClusterRole podnet-gateway: ", "Role podnet-gateway: "},
		"shop":        {"ClusterRole podnet-gateway: "},
		"kube-system": {"ClusterRole podnet-gateway: "},
	} {
		review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
		if err := c.Create(ctx, review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Incomplete {
			t.Fatalf("%s: not all is told: %s", namespace, review.Status.EvaluationError)
		}
		got := verbs(review.Status.ResourceRules)
		if d := cmp.Diff(expected(t, roles), got); d != "" {
			t.Errorf("in %s the gateway may (-reviewed +API server):\n%s", namespace, d)
		}
		for _, r := range review.Status.NonResourceRules {
			if !slices.Equal(r.Verbs, []string{"get"}) {
				t.Errorf("in %s the gateway may %v %v", namespace, r.Verbs, r.NonResourceURLs)
			}
		}
		t.Logf("MEASURED [10] rights of the gateway in %s, each as reviewed  %d", namespace, len(got))
	}
}

// verbs has a line for each verb of each resource, in order.
func verbs(rules []authorizationv1.ResourceRule) []string {
	var lines []string
	for _, r := range rules {
		named := ""
		if len(r.ResourceNames) > 0 {
			named = " named " + strings.Join(r.ResourceNames, ",")
		}
		for _, g := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, v := range r.Verbs {
					lines = append(lines, fmt.Sprintf("%s.%s%s: %s", resource, g, named, v))
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// expected are the reviewed lines of roles, and everybody's.
func expected(t *testing.T, roles []string) []string {
	t.Helper()
	text, err := os.ReadFile(reviewed)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Clone(everybodys)
	for line := range strings.Lines(string(text)) {
		for _, role := range roles {
			rule, ok := strings.CutPrefix(strings.TrimSpace(line), role)
			if !ok {
				continue
			}
			what, all, _ := strings.Cut(rule, ": ")
			for _, v := range strings.Fields(all) {
				lines = append(lines, what+": "+v)
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
