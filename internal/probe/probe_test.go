package probe

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"podnet.dev/internal/key"
)

// fixed is a key pair that is the same in every run.
func fixed(t testing.TB, s string) key.Private {
	t.Helper()
	k, err := key.ParsePrivate(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pair(t testing.TB) (laptop, gateway Key) {
	t.Helper()
	a := fixed(t, "YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=")
	b := fixed(t, "EHVzbcmKQvKAoyGNvKZhATUJ6tRIGJNxsxfnvj9pg1k=")
	laptop, err := NewKey(a, b.Public())
	if err != nil {
		t.Fatal(err)
	}
	gateway, err = NewKey(b, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	return laptop, gateway
}

func stranger(t testing.TB) Key {
	t.Helper()
	a, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(a, b.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBothEndsHaveTheSameKey(t *testing.T) {
	laptop, gateway := pair(t)
	if laptop != gateway {
		t.Error("the two ends compute different keys")
	}
	if s := stranger(t); s == laptop || s.ID() == laptop.ID() {
		t.Error("strangers compute the same key")
	}
	if _, err := NewKey(fixed(t, "YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="), key.Public{}); err == nil {
		t.Error("a public key of low order made a key")
	}
}

func TestKeyDoesNotPrintItself(t *testing.T) {
	k, _ := pair(t)
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v", k, k), k.LogValue().String()} {
		if !strings.Contains(s, k.ID().String()) || strings.Contains(s, fmt.Sprintf("%x", k.mac[:4])) || strings.Contains(s, fmt.Sprint(k.mac[0], k.mac[1])) {
			t.Errorf("prints %q", s)
		}
	}
}

var examples = []Message{
	{Kind: Ping, Size: HeaderSize},
	{Kind: Ping, TxID: 1<<63 + 7, Limit: 1452, Size: MaxSize},
	{Kind: Pong, FromGateway: true, TxID: 5, Observed: netip.MustParseAddrPort("203.0.113.7:31820"), Size: 1232},
	{Kind: Pong, FromGateway: true, Draining: true, Limit: 65535, Observed: netip.MustParseAddrPort("[2001:db8::1]:1"), Size: 65},
	{Kind: Notice, FromGateway: true, Draining: true, Size: HeaderSize},
}

func TestRoundTrip(t *testing.T) {
	laptop, gateway := pair(t)
	for _, want := range examples {
		b := laptop.Append([]byte("before"), want)
		b, ok := bytes.CutPrefix(b, []byte("before"))
		if !ok || len(b) != want.Size {
			t.Fatalf("%+v is %d bytes long", want, len(b))
		}
		id, kind, ok := Peek(b)
		if !ok || id != gateway.ID() || kind != want.Kind {
			t.Errorf("Peek: %v %c %v", id, kind, ok)
		}
		got, err := gateway.Open(b)
		if err != nil || got != want {
			t.Errorf("opened %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestSizesAreKeptInRange(t *testing.T) {
	k, _ := pair(t)
	for size, want := range map[int]int{-1: HeaderSize, 0: HeaderSize, 63: HeaderSize, 64: 64, 1452: 1452, 1453: MaxSize, 70000: MaxSize} {
		if got := len(k.Append(nil, Message{Kind: Ping, Size: size})); got != want {
			t.Errorf("size %d gives %d bytes, want %d", size, got, want)
		}
	}
}

// Whoever changes any bit, cuts or prolongs a probe is found out.
func TestChangedProbesAreRefused(t *testing.T) {
	k, _ := pair(t)
	b := k.Append(nil, Message{Kind: Pong, TxID: 99, Observed: netip.MustParseAddrPort("192.0.2.1:9"), Size: 200})
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if m, err := k.Open(b); err == nil {
				t.Errorf("byte %d bit %d changed: opened %+v", i, bit, m)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if _, err := k.Open(b[:n]); err == nil {
			t.Errorf("opened %d bytes of %d", n, len(b))
		}
	}
	if _, err := k.Open(append(b, 0)); !errors.Is(err, ErrForged) {
		t.Errorf("a longer probe: %v, want ErrForged", err)
	}
	if _, err := stranger(t).Open(b); !errors.Is(err, ErrForged) {
		t.Errorf("another's key: %v, want ErrForged", err)
	}
	if _, err := k.Open([]byte("podnet")); !errors.Is(err, ErrMalformed) {
		t.Errorf("no probe: %v, want ErrMalformed", err)
	}
}

func TestPeekAllocatesNothing(t *testing.T) {
	k, _ := pair(t)
	b := k.Append(nil, Message{Kind: Ping, Size: MaxSize})
	if n := testing.AllocsPerRun(100, func() { Peek(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What strangers send is refused; what our own key made is read as it stands,
// whatever is in it.
func FuzzOpen(f *testing.F) {
	k, _ := pair(f)
	for _, m := range examples {
		f.Add(k.Append(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		_, err := k.Open(b)
		if !bytes.Equal(b, before) {
			t.Fatal("Open changed its input")
		}
		if _, _, ok := Peek(b); !ok {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("no probe at all: %v", err)
			}
			return
		}
		copy(b[offID:], k.id[:])
		k.sum(b[offMAC:offMAC], b)
		m, err := k.Open(b)
		if err != nil {
			t.Fatalf("our own probe is refused: %v", err)
		}
		again, err := k.Open(k.Append(nil, m))
		if err != nil || again != m {
			t.Fatalf("%+v comes back as %+v, %v", m, again, err)
		}
	})
}
