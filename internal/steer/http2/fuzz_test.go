package http2

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// pairOutlet connects to an app, and to a laptop, that say some bytes each.
type pairOutlet struct {
	all         *sync.WaitGroup
	app, laptop []byte
}

func (o pairOutlet) App(context.Context) (net.Conn, error) { return o.says(o.app), nil }

func (o pairOutlet) Laptop(context.Context, *steer.Rule) (net.Conn, error) {
	return o.says(o.laptop), nil
}

func (o pairOutlet) says(b []byte) net.Conn {
	here, there := net.Pipe()
	talk(o.all, there, append([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), b...))
	return here
}

// talk writes b to nc, and reads until nothing comes.
func talk(all *sync.WaitGroup, nc net.Conn, b []byte) {
	all.Go(func() {
		_, _ = nc.Write(b)
		time.Sleep(time.Millisecond)
		_ = nc.Close()
	})
	all.Go(func() { _, _ = io.Copy(io.Discard, nc) })
}

type nobody struct{}

func (nobody) Seen(steer.Seen) {}

// Whatever the ends say, Serve returns and leaves nothing behind.
func FuzzServe(f *testing.F) {
	set, err := steer.Compile([]steer.Rule{
		{Name: "s", Owner: "ada", Protocol: steer.TCP, Port: 80, Mode: steer.Steal, ToApp: true, Matches: []steer.Match{{Method: "POST"}}},
		{Name: "m", Owner: "bob", Protocol: steer.TCP, Port: 80, Mode: steer.Mirror, Matches: []steer.Match{{Path: "/*"}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	port := set.Port(steer.TCP, 80)
	f.Add(requestFrames("GET"), responseFrames(), []byte{})
	f.Add(requestFrames("POST"), []byte{}, responseFrames())
	f.Add(requestFrames("POST"), []byte("\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08"))
	f.Fuzz(func(t *testing.T, client, app, laptop []byte) {
		var all sync.WaitGroup
		defer all.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		here, there := net.Pipe()
		talk(&all, there, append([]byte(http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), client...))
		_ = Serve(ctx, here, nil, func() *steer.Port { return port }, pairOutlet{&all, app, laptop}, nobody{})
		if ctx.Err() != nil {
			t.Error("Serve hangs")
		}
	})
}

func requestFrames(method string) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	newEncoder().write(fr, 1, []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"},
	}, false)
	_ = fr.WriteData(1, false, []byte("body"))
	_ = fr.WriteWindowUpdate(1, 7)
	_ = fr.WritePing(false, [8]byte{1})
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	return b.Bytes()
}

func responseFrames() []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	e := newEncoder()
	e.write(fr, 1, []hpack.HeaderField{{Name: ":status", Value: "103"}}, false)
	e.write(fr, 1, []hpack.HeaderField{{Name: ":status", Value: "200"}}, false)
	_ = fr.WriteData(1, false, []byte("answer"))
	e.write(fr, 1, []hpack.HeaderField{{Name: "grpc-status", Value: "0"}}, true)
	_ = fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	return b.Bytes()
}

// A decoded block is within its limits however it is cut, and what is encoded
// from it decodes to the same.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 1, 'a'}, 3)
	f.Add([]byte{0x10, 1, 'a', 1, 'b', 0x3f, 0xe1, 0x1f}, 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := decodeBlock(newDecoder(), b, len(b))
		pieces, errPieces := decodeBlock(newDecoder(), b, cut)
		if err == nil && errPieces == nil && len(whole.fields) != len(pieces.fields) {
			t.Fatalf("%v in one, %v in pieces", whole, pieces)
		}
		if err != nil {
			return
		}
		size := 0
		for _, field := range whole.fields {
			size += int(field.Size())
		}
		if size > steer.MaxHead || len(whole.fields) > steer.MaxFields {
			t.Fatalf("%d bytes in %d fields", size, len(whole.fields))
		}
		_, _ = readHead(whole.fields)
		var out bytes.Buffer
		e, d := newEncoder(), hpack.NewDecoder(headerTable, nil)
		for range 2 { // the second time from the table
			out.Reset()
			e.write(http2.NewFramer(&out, nil), 1, whole.fields, false)
			var again []hpack.HeaderField
			d.SetEmitFunc(func(f hpack.HeaderField) { again = append(again, f) })
			fr := http2.NewFramer(nil, &out)
			for out.Len() > 0 {
				frame, err := fr.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Write(frame.(interface{ HeaderBlockFragment() []byte }).HeaderBlockFragment()); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Close(); err != nil || len(again) != len(whole.fields) {
				t.Fatalf("%v became %v, %v", whole.fields, again, err)
			}
			for i := range again {
				if again[i] != whole.fields[i] {
					t.Fatalf("%v became %v", whole.fields[i], again[i])
				}
			}
		}
	})
}

func decodeBlock(d *decoder, b []byte, cut int) (block, error) {
	d.begin()
	for n := max(1, cut); len(b) > 0; {
		n = min(n, len(b))
		if err := d.fragment(b[:n]); err != nil {
			return block{}, err
		}
		b = b[n:]
	}
	return d.finish()
}
