package control

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	set := ToAgent{Set: &Set{
		Generation: 7,
		Rules: []Rule{{
			Rule: steer.Rule{
				Name: "alice-web-x", Owner: "alice", Since: time.Unix(1, 0).UTC(), Protocol: steer.TCP, Port: 8080, Mode: steer.Steal,
				Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: "alice"}}, Path: "/api/*"}}, ToApp: true,
			},
			Laptop: netip.MustParseAddr("fd70:6f64:6e65:7403::1"), RelayPort: 20000, Here: true,
		}},
		Gateways: []Gateway{{PublicKey: key.Public{1}, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.5:51820")}}},
	}}
	var b bytes.Buffer
	for range 2 {
		if err := Write(&b, set); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&b)
	for range 2 {
		var got ToAgent
		if err := r.Read(&got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, set) {
			t.Errorf("read %+v, wrote %+v", got.Set, set.Set)
		}
	}
	if err := r.Read(new(ToAgent)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"too long":       {strings.Repeat(" ", MaxLine) + "\n", ErrTooLong},
		"without an end": {strings.Repeat("x", 2*MaxLine), ErrTooLong},
		"cut":            {`{"set":`, io.ErrUnexpectedEOF},
	} {
		if err := NewReader(strings.NewReader(c.text)).Read(new(ToAgent)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := Write(io.Discard, FromAgent{Error: strings.Repeat("x", MaxLine)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("write: %v", err)
	}
}

// FuzzRead gives each side whatever the other might send.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"set":{"generation":1,"rules":[{"name":"a","port":80,"laptop":"::1"}],"gateways":[]}}` + "\n"))
	f.Add([]byte(`{"event":{"rule":"a","took":5},"rules":["a"]}` + "\n{\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(ToAgent), new(FromAgent), new(ToPod), new(FromPod), new(Hello)} {
			r := NewReader(bytes.NewReader(b))
			for range 100 {
				if err := r.Read(v); err != nil {
					break
				}
				var again bytes.Buffer
				if err := Write(&again, v); err != nil && !errors.Is(err, ErrTooLong) {
					t.Fatalf("read but not written: %+v: %v", v, err)
				}
			}
		}
	})
}
