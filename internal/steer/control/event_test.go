package control

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

var began = time.Date(2026, 11, 23, 1, 2, 3, 40506, time.UTC)

var events = []Event{
	{},
	{Rule: "alice-web-6f9c", Began: began, Method: "GET", Target: "/api/carts/17?x=1", Host: "web.shop:8080", Status: 200, Took: 1234567, In: 80, Out: 1 << 40},
	{Rule: "a", Began: began.In(time.FixedZone("", 5400)), Mirror: true, ByApp: true, Took: -1, Error: "connection refused"},
	{Rule: "a", Began: began, Target: "/<&>", Host: "\"\\\x00\x7f", Error: "Z\xffr\u2028 é"},
}

// TestEventsAreWrittenAsJSON: byte for byte as any other line.
func TestEventsAreWrittenAsJSON(t *testing.T) {
	for _, e := range events {
		var want bytes.Buffer
		if err := Write(&want, FromPod{Event: &e}); err != nil {
			t.Fatal(err)
		}
		if got := string(AppendEvent(nil, &e)); got != want.String() {
			t.Errorf("wrote %s, want %s", got, &want)
		}
		var back FromPod
		if err := NewReader(&want).Read(&back); err != nil || back.Event == nil || !back.Event.Began.Equal(e.Began) {
			t.Errorf("%+v came back as %+v: %v", e, back.Event, err)
		}
	}
}

// FuzzReadEvent: what is read here is read as encoding/json does.
func FuzzReadEvent(f *testing.F) {
	for _, e := range events {
		f.Add(AppendEvent(nil, &e))
	}
	for _, odd := range []string{"", "{}", `{"event":{"rule":"a","began":"x","took":0,"in":0,"out":0}}`, `{"event":{"rule":"a","began":"0001-01-01T00:00:00Z","took":00,"in":-0,"out":1e3}}`,
		`{"event":{"rule":"a","began":"2026-11-23T1:02:03Z","took":0,"in":0,"out":0}}`, `{"event":{"rule":"a","began":"2026-11-23T01:02:03,5Z","took":0,"in":0,"out":0}}`} {
		f.Add([]byte(odd))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, ok := readEvent(line)
		if !ok {
			return
		}
		var want FromPod
		if err := json.Unmarshal(line, &want); err != nil || !reflect.DeepEqual(want, FromPod{Event: got}) {
			t.Errorf("%q is %+v, and to encoding/json %+v, %v", line, got, want.Event, err)
		}
	})
}

// TestCommonEventsAreReadHere: a change of Event's fields is one here, too.
func TestCommonEventsAreReadHere(t *testing.T) {
	for _, e := range events[:3] {
		got, ok := readEvent(AppendEvent(nil, &e))
		if ok {
			got.Began = e.Began // zones are not the same one, though they are alike
		}
		if !ok || !reflect.DeepEqual(*got, e) {
			t.Errorf("%+v, %v, want %+v", got, ok, e)
		}
	}
	if n := reflect.TypeFor[Event]().NumField(); n != 12 {
		t.Errorf("Event has %d fields", n)
	}
}

func BenchmarkEvent(b *testing.B) {
	line := AppendEvent(nil, &events[1])
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			line = AppendEvent(line[:0], &events[1])
		}
	})
	b.Run("read", func(b *testing.B) {
		text := strings.Repeat(string(line), 1000)
		var r *Reader
		for i := 0; b.Loop(); i++ {
			if i%1000 == 0 {
				r = NewReader(strings.NewReader(text))
			}
			if err := r.Read(new(FromPod)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
