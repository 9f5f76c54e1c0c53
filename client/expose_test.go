package client_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
)

// reaches says whether the laptop's program answers at a Service's name.
func (w *place) reaches(network, name string, port uint16) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := w.Call(ctx, network, name, port)
	if err != nil {
		return false
	}
	defer c.Close()
	return echo(c, time.Second) == nil
}

// TestExposing: a local port has a Service's name in the cluster, and goes on having
// it after its gateway and its lease have ended.
func TestExposing(t *testing.T) {
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathAuto)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go answer(local)

	req := localapi.ExposeRequest{Name: "my-api", Local: local.Addr().String(), Ports: []uint16{80, 8080}}
	if err := l.session.Expose(t.Context(), req, func(e localapi.ExposeEvent) { t.Log(e.Type, e.Text) }); err != nil {
		t.Fatal(err)
	}
	if !w.reaches("tcp", "my-api", 80) || !w.reaches("tcp", "my-api", 8080) {
		t.Error("the name does not lead to the laptop")
	}
	if _, err := w.Call(t.Context(), "tcp", "my-api", 81); !errors.Is(err, town.ErrNoService) {
		t.Errorf("another port: %v", err)
	}
	l.within(5*time.Second, "connections are counted", func() bool {
		all, err := l.session.Exposed(t.Context(), false, "")
		return err == nil && len(all) == 1 && all[0].Connections == 2 && all[0].Failed == 0 && all[0].State == localapi.ExposeStateReady
	})

	w.Kill("podnet-gateway-0")
	w.Start("podnet-gateway-0")
	l.within(30*time.Second, "reached through the gateway's successor", func() bool { return w.reaches("tcp", "my-api", 80) })

	w.Set(town.Trouble{Away: true})
	l.within(5*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	if !w.reaches("tcp", "my-api", 80) {
		t.Error("not reached while the API server is away")
	}
	w.Forget() // the gateway, after an hour
	w.Set(town.Trouble{})
	l.within(10*time.Second, "enrolled again", func() bool { return l.status().Reenrolled == 1 })
	l.within(20*time.Second, "reached with another key", func() bool { return w.reaches("tcp", "my-api", 80) })

	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo(b[:n], from)
		}
	}()
	second := localapi.ExposeRequest{Name: "second", Local: datagrams.LocalAddr().String() + "/udp", Ports: []uint16{53}}
	if err := l.session.Expose(t.Context(), second, func(localapi.ExposeEvent) {}); err != nil {
		t.Fatal(err)
	}
	if names, err := l.session.StopExposing(t.Context(), "", "my-api"); err != nil || !slices.Equal(names, []string{"shop/my-api"}) {
		t.Errorf("stopped %v, %v", names, err)
	}
	if w.reaches("tcp", "my-api", 80) || !w.reaches("udp", "second", 53) {
		t.Error("the end of one exposure is not the end of it alone")
	}
	if all, err := l.session.Exposed(t.Context(), true, ""); err != nil || len(all) != 1 || all[0].Name != "second" || all[0].Owner != "alice" {
		t.Errorf("everybody's: %+v, %v", all, err)
	}
	l.leave()
	if left := w.Exposed(); len(left) != 0 {
		t.Errorf("the session left %v", left)
	}
}
