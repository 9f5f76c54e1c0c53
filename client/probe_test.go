package client_test

import (
	"errors"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
)

// TestProbe tries a session that is well, one whose way is cut, and none.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.connect(client.PathUDP)
	p, err := l.session.Probe(t.Context())
	if err != nil || p.Tunnel != nil || p.RTTMs <= 0 {
		t.Errorf("%+v %v, %v", p, p.Tunnel, err)
	}
	l.wire.Block(true)
	p, err = l.session.Probe(t.Context())
	if err != nil || p.Tunnel == nil || p.Tunnel.Code != localapi.CodeDNS || p.Tunnel.Hint == "" || p.RTTMs != 0 {
		t.Errorf("with the way cut: %+v %v, %v", p, p.Tunnel, err)
	}
	l.wire.Block(false)
	l.within(20*time.Second, "well again", func() bool { p, err := l.session.Probe(t.Context()); return err == nil && p.Tunnel == nil })
	l.leave()
	var none *localapi.Error
	if _, err := l.session.Probe(t.Context()); !errors.As(err, &none) || none.Code != localapi.CodeNotConnected {
		t.Errorf("after the end: %v", err)
	}
}
