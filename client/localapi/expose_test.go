package localapi

import (
	"slices"
	"testing"

	"podnet.dev/internal/steer"
)

func TestExposePlace(t *testing.T) {
	for local, want := range map[string]struct {
		local    string
		protocol steer.Protocol
		ports    []uint16
		asked    []uint16
	}{
		"3000":           {"3000", steer.TCP, []uint16{80, 3000}, nil},
		"80/tcp":         {"80", steer.TCP, []uint16{80}, nil},
		"app.test:30":    {"app.test:30", steer.TCP, []uint16{30, 80}, nil},
		"[::1]:5353/udp": {"[::1]:5353", steer.UDP, []uint16{5353}, nil},
		"4000":           {"4000", steer.TCP, []uint16{443, 8080}, []uint16{8080, 443, 8080}},
	} {
		r := ExposeRequest{Name: "x", Local: local, Ports: want.asked}
		if err := r.Check(); err != nil {
			t.Errorf("%s: %v", local, err)
		}
		at, protocol, ports, err := r.Place()
		if err != nil || at != want.local || protocol != want.protocol || !slices.Equal(ports, want.ports) {
			t.Errorf("%s: %s, %s, %v, %v", local, at, protocol, ports, err)
		}
	}
}

func TestSameExposure(t *testing.T) {
	a := ExposeRequest{Namespace: "shop", Name: "my-api", Local: "3000"}
	if !a.SameAs(ExposeRequest{Namespace: "shop", Name: "my-api", Local: "3000/tcp", Ports: []uint16{3000, 80}, Hold: true}) {
		t.Error("how it was written matters")
	}
	for name, o := range map[string]ExposeRequest{
		"namespace": {Namespace: "pay", Name: "my-api", Local: "3000"},
		"name":      {Namespace: "shop", Name: "another", Local: "3000"},
		"local":     {Namespace: "shop", Name: "my-api", Local: "4000"},
		"protocol":  {Namespace: "shop", Name: "my-api", Local: "3000/udp", Ports: []uint16{80, 3000}},
		"ports":     {Namespace: "shop", Name: "my-api", Local: "3000", Ports: []uint16{80}},
	} {
		if a.SameAs(o) {
			t.Errorf("%s does not matter", name)
		}
	}
}
