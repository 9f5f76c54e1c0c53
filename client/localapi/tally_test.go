package localapi

import (
	"reflect"
	"testing"
)

func TestTally(t *testing.T) {
	ready := SteerPod{Name: "web-1", State: SteerPodReady}
	dead := SteerPod{Name: "web-2", State: SteerPodReady, Text: "connection refused at 127.0.0.1:3000"}
	refused := SteerPod{Name: "web-3", State: SteerPodRefused, Text: "may not"}
	waiting := SteerPod{Name: "web-4", State: SteerPodWaiting, Text: "the agent starts"}
	got := TallyRules([]SteerRule{
		{Name: "a", Ready: 1, Pods: []SteerPod{ready}},
		{Name: "b", Ready: 2, Pods: []SteerPod{ready, dead, refused}},
		{Name: "c", Ready: 1, Pods: []SteerPod{waiting, ready}},
		{Name: "d"},
		{Name: "e", Ready: 1, Pods: []SteerPod{dead}},
	})
	want := Tally{Count: 5, Ready: 2, Trouble: []string{
		"b, web-2: connection refused at 127.0.0.1:3000 (and 1 more)", "e, web-2: connection refused at 127.0.0.1:3000"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rules: %+v, want %+v", got, want)
	}
	got = TallyExposures([]Exposure{
		{Namespace: "shop", Name: "a", State: ExposeStateReady}, {Namespace: "shop", Name: "b", State: ExposeStateWaiting, Text: "soon"},
		{Namespace: "shop", Name: "c", State: ExposeStateTrouble, Text: "somebody has the name"}, {Namespace: "shop", Name: "d", State: ExposeStateReady, Text: "connection refused"},
	})
	want = Tally{Count: 4, Ready: 2, Trouble: []string{"shop/c: somebody has the name", "shop/d: connection refused"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("exposures: %+v, want %+v", got, want)
	}
	if got := TallyRules(nil); !reflect.DeepEqual(got, Tally{Trouble: []string{}}) {
		t.Errorf("nothing: %+v", got)
	}
}
