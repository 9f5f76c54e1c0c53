package key

import (
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
