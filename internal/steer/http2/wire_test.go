package http2

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is one end of a connection, frame by frame.
type wire struct {
	t   testing.TB
	nc  net.Conn
	fr  *http2.Framer
	enc *encoder
}

func newWire(t testing.TB, nc net.Conn) *wire {
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	w := &wire{t: t, nc: nc, fr: http2.NewFramer(nc, nc), enc: newEncoder()}
	w.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.fr.AllowIllegalWrites = true
	return w
}

// wire connects a client that has said its SETTINGS.
func (w *world) wire(settings ...http2.Setting) *wire {
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	c := newWire(w.t, nc)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	_ = c.fr.WriteSettings(settings...)
	return c
}

// wires runs a server whose frames the test makes. It has said its SETTINGS when
// the test gets a connection.
func (w *world) wires(name string, settings ...http2.Setting) <-chan *wire {
	conns := make(chan *wire, 8)
	ctx, cancel := context.WithCancel(context.Background())
	w.raw(name, func(nc net.Conn) {
		_, _ = io.ReadFull(nc, make([]byte, len(http2.ClientPreface)))
		s := newWire(w.t, nc)
		_ = s.fr.WriteSettings(settings...)
		conns <- s
		<-ctx.Done()
	})
	w.t.Cleanup(cancel)
	return conns
}

// request sends a request's head; more are fields in pairs.
func (w *wire) request(id uint32, end bool, more ...string) {
	w.headers(id, end, append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "pod"}, more...)...)
}

func (w *wire) headers(id uint32, end bool, pairs ...string) {
	var fields []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	w.enc.write(w.fr, id, fields, end)
}

// await reads until a frame is what the test waits for.
func await[F http2.Frame](w *wire, is func(F) bool) F {
	w.t.Helper()
	for {
		f, err := w.fr.ReadFrame()
		if err != nil {
			var none F
			w.t.Fatalf("await %T: %v", none, err)
		}
		if f, ok := f.(F); ok && is(f) {
			return f
		}
	}
}

func anyFrame[F http2.Frame](F) bool { return true }

// on picks frames of a stream.
func on[F http2.Frame](id uint32) func(F) bool {
	return func(f F) bool { return f.Header().StreamID == id }
}
