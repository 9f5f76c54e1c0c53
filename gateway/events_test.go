package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
)

// The Events are there, and tell the Peer that they are about.
func TestEventsOfAPeer(t *testing.T) {
	s := setStage(t)
	s.start("podnet-gateway-0")
	l := s.enrol("laptop", 300)
	want := func(reason, note string) {
		t.Helper()
		apiserver.Eventually(t, 20*time.Second, "the Event "+reason, func() error {
			var all eventsv1.EventList
			if err := s.admin.List(t.Context(), &all, client.InNamespace(deploy.DefaultNamespace)); err != nil {
				return err
			}
			for _, e := range all.Items {
				if e.Reason == reason && strings.Contains(e.Note, note) && e.Regarding.Kind == "Peer" && e.Regarding.Name == l.name {
					return nil
				}
			}
			return fmt.Errorf("%d Events", len(all.Items))
		})
	}
	want("Enrolled", "alice on laptop enrolled at 198.18.")
	if err := s.alice.Create(t.Context(), access("shop", "laptop", 1)); err != nil {
		t.Fatal(err)
	}
	want("AccessChanged", "open namespaces: shop")
	if err := s.alice.Delete(t.Context(), &l.peer); err != nil {
		t.Fatal(err)
	}
	want("Ended", "the Peer was deleted")
}
