package object

import (
	"encoding/json"
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

// FuzzRule reads what somebody who may write SteeringRules might: one that is taken says
// the same again, and decides requests.
func FuzzRule(f *testing.F) {
	f.Add(`{"spec":{"user":"alice","port":8080,"protocol":"tcp","mode":"steal","matches":[{"headers":[{"name":"x-user","value":"alice"}],"path":"/api/*"}]}}`)
	f.Add(`{"spec":{"port":65536,"protocol":"udp","mode":"mirror","matches":[{"grpc":"shop.Cart/*"},{"host":"*","method":"GET","query":[{"name":"q","value":"**"}]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var o v1alpha1.SteeringRule
		if json.Unmarshal([]byte(text), &o) != nil {
			return
		}
		r, err := Rule(&o)
		if err != nil {
			return
		}
		if int32(r.Port) != o.Spec.Port {
			t.Errorf("port %d became %d", o.Spec.Port, r.Port)
		}
		o.Spec.Matches = Matches(r.Matches)
		if again, err := Rule(&o); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}
