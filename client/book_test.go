package client_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/addressing"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
	"podnet.dev/internal/remap"
)

// TestGuessedAddressIsRefused: who knows a Service's address and how this machine maps
// it, and has not asked for its name here, gets nothing until somebody names it.
func TestGuessedAddressIsRefused(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	l := w.begin(client.PathAuto)
	var refused *localapi.Error
	if err := l.session.OpenAddress("100.80.1.7"); !errors.As(err, &refused) || refused.Code != localapi.CodeNotConnected {
		t.Errorf("before the session is ready: %v", err)
	}
	l.within(10*time.Second, "ready", func() bool { return l.told(localapi.EventReady, "") })
	if err := l.session.OpenAddress("100.80.1.7"); !errors.As(err, &refused) || refused.Code != localapi.CodeNotFound || refused.Hint == "" {
		t.Errorf("where nothing is virtual: %v", err)
	}
	l.leave()

	w.addresses = addressing.Virtual
	l = w.connect(client.PathAuto)
	guess := l.guess(t, town.Service)
	reaches := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := l.host.Dial(ctx, "tcp", netip.AddrPortFrom(guess, 5432).String())
		if err != nil {
			return false
		}
		defer c.Close()
		return echo(c, time.Second) == nil
	}
	if reaches() {
		t.Error("a guessed address answers")
	}
	if a := l.status().Addresses; a.Refused == 0 || a.LastRefused != guess.String() {
		t.Errorf("told of %d refusals, the last of %q", a.Refused, a.LastRefused)
	}
	if !l.works() || !reaches() {
		t.Error("nor does it once its name was asked for")
	}
	other := guess.Next()
	if err := l.session.OpenAddress(other.String()); err != nil {
		t.Error(err)
	}
	if err := l.session.OpenAddress(town.Service.String()); !errors.As(err, &refused) || refused.Code != localapi.CodeNotFound {
		t.Errorf("opened what is no virtual address: %v", err)
	}
}

// guess is at which address the machine has one of the cluster's, as somebody finds out
// who asks nobody.
func (l *laptop) guess(t *testing.T, real netip.Addr) netip.Addr {
	t.Helper()
	var pairs []remap.Pair
	for _, v := range l.status().Addresses.Map {
		p, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
	}
	m, err := remap.Parse(pairs)
	if err != nil {
		t.Fatal(err)
	}
	a, ok := m.Virtual(real)
	if !ok {
		t.Fatalf("nothing stands for %s", real)
	}
	return a
}
