package gateway

import (
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/internal/key"
)

// A laptop with the first podnet there was, whose objects have nothing of what came
// later, is let in and reaches its namespace.
func TestFirstClient(t *testing.T) {
	s := setStage(t)
	g, _ := s.start("podnet-gateway-0")
	web := s.pod("shop", "web", "10.96.1.1")
	secret, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	l := &laptop{stage: s, name: "first", secret: secret}
	for _, o := range []map[string]any{
		{"kind": "Peer", "metadata": map[string]any{"namespace": deploy.DefaultNamespace, "name": l.name},
			"spec": map[string]any{"user": "alice", "publicKey": secret.Public().String(), "leaseSeconds": int64(300), "renew": int64(1)}},
		{"kind": "Access", "metadata": map[string]any{"namespace": "shop", "name": l.name},
			"spec": map[string]any{"user": "alice", "peer": l.name, "renew": int64(1)}},
	} {
		o["apiVersion"] = podnet.GroupVersion.String()
		if err := s.alice.Create(t.Context(), &unstructured.Unstructured{Object: o}); err != nil {
			t.Fatal(err)
		}
	}
	l.await("is ready", func(p *podnet.Peer) bool {
		return len(p.Status.Gateways) == 1 && p.Status.Network != nil && p.Status.ExpiresAt != nil && p.Status.Address4 != ""
	})
	l.connect(g, netip.PrefixFrom(web.Addr(), 32))
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := l.dial(web, 5*time.Second)
		if err == nil {
			err = echo(c)
			_ = c.Close()
			if err != nil {
				t.Error(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
