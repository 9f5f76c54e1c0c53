package http2

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"podnet.dev/internal/steer"
)

// direct is an outlet to an app alone.
type direct string

func (d direct) App(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(d))
}

func (d direct) Laptop(ctx context.Context, _ *steer.Rule) (net.Conn, error) { return d.App(ctx) }

// BenchmarkRequest compares one request after the other with and without us
// between, and BenchmarkDownload bytes.
func BenchmarkRequest(b *testing.B)  { compare(b, 100) }
func BenchmarkDownload(b *testing.B) { compare(b, 1<<20) }

func compare(b *testing.B, size int) {
	answer := make([]byte, size)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	app := l.Addr().String()
	server := &http.Server{Protocols: plain(), Handler: http.HandlerFunc(
		func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write(answer) })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	set, err := steer.Compile([]steer.Rule{{Name: "s", Owner: "ada", Protocol: steer.TCP, Port: 80, Mode: steer.Steal,
		Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: "ada"}}}}}})
	if err != nil {
		b.Fatal(err)
	}
	us := acceptAll(b, func(nc net.Conn) {
		_ = Serve(context.Background(), nc, nil, func() *steer.Port { return set.Port(steer.TCP, 80) }, direct(app), nobody{})
	})
	for name, addr := range map[string]string{"direct": app, "steered": us} {
		b.Run(name, func(b *testing.B) {
			tr := &http.Transport{Protocols: plain(), DisableCompression: true}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.Get("http://" + addr)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}

func acceptAll(b *testing.B, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go serve(nc)
		}
	}()
	return l.Addr().String()
}
