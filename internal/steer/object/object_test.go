package object

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/internal/steer"
)

func TestRule(t *testing.T) {
	matches := []steer.Match{
		{Headers: []steer.Condition{{Name: "x-user", Value: "alice"}}, Query: []steer.Condition{{Name: "q", Value: "*"}}, Method: "GET", Host: "web.*", Path: "/api/*"},
		{GRPC: "shop.Cart/*"},
	}
	o := &v1alpha1.SteeringRule{
		ObjectMeta: metav1.ObjectMeta{Name: "alice-web-x2"},
		Spec: v1alpha1.SteeringRuleSpec{
			User: "alice", Port: 8080, Protocol: "tcp", Mode: "steal", OnError: "app", ClientAddress: "header", Matches: Matches(matches),
		},
	}
	got, err := Rule(o)
	want := steer.Rule{
		Name: "alice-web-x2", Owner: "alice", Protocol: steer.TCP, Port: 8080, Mode: steer.Steal, Matches: matches, ToApp: true, ClientAddress: steer.ClientByHeader,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	o.Spec.Mode = "both"
	if _, err := Rule(o); err == nil {
		t.Error("a mode that does not exist was taken")
	}
}
