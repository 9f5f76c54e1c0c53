package key

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// The pair is RFC 7748 section 6.1's Alice.
const (
	alicePrivate = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	alicePublic  = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

func TestPublicFromPrivate(t *testing.T) {
	k, err := ParsePrivate(alicePrivate)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Public().String(); got != alicePublic {
		t.Errorf("public key = %s, want %s", got, alicePublic)
	}
}

// The numbers are RFC 7748 section 6.1's; Bob's public key is the other one there.
func TestShared(t *testing.T) {
	alice, err := ParsePrivate(alicePrivate)
	if err != nil {
		t.Fatal(err)
	}
	bob, err := ParsePublic("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := alice.Shared(bob)
	if want := "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"; err != nil || hex.EncodeToString(secret[:]) != want {
		t.Errorf("shared secret = %x, %v; want %s", secret, err, want)
	}
	for _, low := range []Public{{}, {1}} {
		if _, err := alice.Shared(low); err == nil {
			t.Errorf("low-order key %s gives a secret", low)
		}
	}
}

func TestPrivateNeverPrints(t *testing.T) {
	k, err := ParsePrivate(alicePrivate)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", k)
	fmt.Fprintf(&out, "%v %s %+v %#v", k, k, k, k)
	fmt.Fprintf(&out, "%v %+v", struct{ K Private }{k}, &k)
	if strings.Contains(out.String(), alicePrivate[:8]) || strings.Contains(out.String(), k.Hex()[:8]) || strings.Contains(out.String(), "119") {
		t.Errorf("the private key shows in %q", out.String())
	}
}

func TestAddress6(t *testing.T) {
	p, err := ParsePublic(alicePublic)
	if err != nil {
		t.Fatal(err)
	}
	a := p.Address6()
	if !Prefix6.Contains(a) || a != p.Address6() {
		t.Errorf("address %s is not a stable one in %s", a, Prefix6)
	}
	other, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	if other.Public().Address6() == a {
		t.Error("two keys share an address")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "x", alicePublic[:40], alicePublic + "AAAA", strings.Repeat("!", 44)} {
		if _, err := ParsePublic(s); err == nil {
			t.Errorf("ParsePublic(%q) accepted it", s)
		}
	}
}
