package write

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/status"
)

func TestUndeclared(t *testing.T) {
	u := newUndeclared(slog.New(slog.DiscardHandler))
	for text, learns := range map[string]bool{
		"":                      false,
		"the server is on fire": false,
		`.spec.user: field not declared in schema`: false, // not ours to write
	} {
		if u.learn("Peer", errors.New(text)) != learns {
			t.Errorf("%q", text)
		}
	}
	refusal := errors.New("failed to create typed patch object (podnet-system/a; podnet.dev/v1alpha1, Kind=Peer): errors:\n" +
		`  .status.gateways[pod="podnet-gateway-0"].limits: field not declared in schema` + "\n  .status.virtual: field not declared in schema")
	patch := status.Patch("Peer", &podnet.Peer{}, map[string]any{
		"gateways": []any{status.Plain(podnet.Gateway{Pod: "podnet-gateway-0", Limits: []string{"user-rate"}})}, "virtual": []any{}, "address4": "198.18.0.2",
	})
	if same, had := u.trim(patch); had || same != patch {
		t.Error("nothing is known to be missing")
	}
	if !u.learn("Peer", refusal) || u.learn("Peer", refusal) {
		t.Error("it learns, and once")
	}
	less, had := u.trim(patch)
	want := map[string]any{"gateways": []any{map[string]any{"pod": "podnet-gateway-0", "podUID": "", "publicKey": "", "streamPort": int64(0)}}, "address4": "198.18.0.2"}
	if d := cmp.Diff(want, less.Object["status"]); !had || d != "" {
		t.Errorf("%v, %s", had, d)
	}
	if _, there, _ := unstructured.NestedSlice(patch.Object, "status", "virtual"); !there {
		t.Error("the patch itself has changed")
	}
	if _, had := u.trim(status.Patch("SteeringRule", &podnet.SteeringRule{}, map[string]any{"virtual": true})); had {
		t.Error("another kind lacks nothing")
	}
	entry := podnet.Gateway{Pod: "podnet-gateway-0", Limits: []string{"user-rate"}, NAT: "endpoint-dependent"}
	u.clear("Peer", ".status.gateways", &entry)
	if d := cmp.Diff(podnet.Gateway{Pod: "podnet-gateway-0", NAT: "endpoint-dependent"}, entry); d != "" {
		t.Error(d)
	}
}
