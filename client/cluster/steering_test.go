package cluster

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

const ruleList = "/apis/podnet.dev/v1alpha1/namespaces/shop/steeringrules"

func aRule() *v1alpha1.SteeringRule {
	return &v1alpha1.SteeringRule{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice-web-1", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-1", UID: "uid-web-1"}}},
		Spec:       v1alpha1.SteeringRuleSpec{Peer: "u1", Rule: "web", Pod: "web-1", PodUID: "uid-web-1", Port: 8080, RelayPort: 20000},
	}
}

func TestCreateSteeringRule(t *testing.T) {
	f := newFakeAPI(t)
	var got v1alpha1.SteeringRule
	f.on["POST "+ruleList] = func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		reply(w, 201, got)
	}
	rule := aRule()
	if err := f.client().CreateSteeringRule(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "SteeringRule" || got.APIVersion != "podnet.dev/v1alpha1" || got.Spec.User != "alice" || got.Spec.Renew != 1 ||
		got.Labels["podnet.dev/rule"] != "web" || len(got.OwnerReferences) != 1 {
		t.Errorf("wrote %+v", got)
	}
	if !reflect.DeepEqual(rule, aRule()) {
		t.Errorf("the caller's rule has changed: %+v", rule)
	}
}

func TestSteeringRuleRefused(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	status, cause, text := 0, metav1.StatusReasonForbidden, ""
	answer := func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, cause, text) }
	f.on["POST "+ruleList] = answer
	f.on["PATCH "+ruleList+"/r"] = answer
	f.on["DELETE "+ruleList+"/r"] = answer
	f.on["GET "+ruleList] = answer
	f.on["GET "+ruleList+"/r"] = answer
	create := func() error { return c.CreateSteeringRule(t.Context(), aRule()) }

	status, cause, text = 409, metav1.StatusReasonAlreadyExists, "exists"
	if err := create(); err != ErrExists {
		t.Errorf("a name that is taken: %v", err)
	}
	status, cause, text = 422, metav1.StatusReasonInvalid, "spec: Invalid value: a udp port has no requests to match"
	explained(t, create(), localapi.CodeForbidden, "a udp port has no requests")
	status, cause, text = 403, metav1.StatusReasonForbidden, `steeringrules "r" is forbidden: ValidatingAdmissionPolicy 'podnet-steering' denied request: PODNET-STEER: not yours`
	explained(t, create(), localapi.CodeForbidden, "PODNET-STEER: not yours")

	f.denied["patch pods/ephemeralcontainers shop"] = true
	explained(t, create(), localapi.CodeForbidden, "alice may not patch pods/ephemeralcontainers in namespace shop", "kubectl -n shop create rolebinding alice-podnet-steer --clusterrole=podnet-steer --user=alice")
	var forbidden *ForbiddenError
	if err := c.RenewSteeringRule(t.Context(), "shop", "r", 2); !errors.As(err, &forbidden) {
		t.Errorf("renew: %v", err)
	}
	f.denied["create steeringrules shop"] = true
	explained(t, create(), localapi.CodeForbidden, "create steeringrules in namespace shop", "--clusterrole=podnet-user")
	f.denied["delete steeringrules shop"] = true
	explained(t, c.DeleteSteeringRule(t.Context(), "shop", "r"), localapi.CodeForbidden, "delete steeringrules")
	_, err := c.SteeringRules(t.Context(), "shop", "")
	explained(t, err, localapi.CodeForbidden, "list steeringrules in namespace shop")

	status, cause = 404, metav1.StatusReasonNotFound
	for name, err := range map[string]error{"renew": c.RenewSteeringRule(t.Context(), "shop", "r", 2), "key": c.SetAgentKey(t.Context(), "shop", "r", "K")} {
		if err != ErrGone {
			t.Errorf("%s what is gone: %v", name, err)
		}
	}
	if _, err := c.SteeringRule(t.Context(), "shop", "r"); err != ErrGone {
		t.Errorf("read what is gone: %v", err)
	}
	if err := c.DeleteSteeringRule(t.Context(), "shop", "r"); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
	if all, err := c.SteeringRules(t.Context(), "shop", ""); len(all) != 0 || err != nil {
		t.Errorf("an old podnet has %d rules, %v", len(all), err)
	}
	explained(t, create(), localapi.CodeNotInstalled, "podnet install") // the definition is missing
	f.on["GET /apis/podnet.dev/v1alpha1"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "peers"}, {Name: "steeringrules"}}})
	}
	explained(t, create(), localapi.CodeUsage, "no namespace shop")
}

func TestSteeringRulesOfAll(t *testing.T) {
	f := newFakeAPI(t)
	f.on["GET /apis/podnet.dev/v1alpha1/steeringrules"] = func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("labelSelector"); got != "podnet.dev/rule=web" {
			t.Errorf("selector %q", got)
		}
		reply(w, 200, v1alpha1.SteeringRuleList{Items: []v1alpha1.SteeringRule{*aRule()}})
	}
	all, err := f.client().SteeringRules(t.Context(), "", "podnet.dev/rule=web")
	if err != nil || len(all) != 1 || all[0].Spec.Pod != "web-1" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestRenewAndKeyArePatches(t *testing.T) {
	f := newFakeAPI(t)
	var got []string
	f.on["PATCH "+ruleList+"/r"] = func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		got = append(got, r.Header.Get("Content-Type")+" "+string(body))
		reply(w, 200, aRule())
	}
	c := f.client()
	if err := errors.Join(c.RenewSteeringRule(t.Context(), "shop", "r", 7), c.SetAgentKey(t.Context(), "shop", "r", "K=")); err != nil {
		t.Fatal(err)
	}
	want := []string{`application/merge-patch+json {"spec":{"renew":7}}`, `application/merge-patch+json {"spec":{"agentKey":"K="}}`}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("patches %q, want %q", got, want)
	}
}
