package http1

import (
	"context"
	"io"
	"net"
	"testing"

	"podnet.dev/internal/steer"
)

// BenchmarkPass is a request and its response over loopback, straight to the app
// and through the engine; the difference is what steering costs those that it does
// not concern. Serve sits in the same process, so that each wake-up is counted.
func BenchmarkPass(b *testing.B) {
	request := []byte(get("/api/carts/17", "User-Agent: bench\r\nAccept: */*\r\nx-user: bob\r\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for buf := make([]byte, len(request)); ; {
					if _, err := io.ReadFull(conn, buf); err != nil {
						return
					}
					io.WriteString(conn, ok)
				}
			}()
		}
	}()
	ask := func(b *testing.B, addr string) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		buf := make([]byte, len(ok))
		b.ReportAllocs()
		for b.Loop() {
			conn.Write(request)
			if _, err := io.ReadFull(conn, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { ask(b, l.Addr().String()) })
	b.Run("steered", func(b *testing.B) {
		set, err := steer.Compile([]steer.Rule{steal()})
		if err != nil {
			b.Fatal(err)
		}
		front, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer front.Close()
		done := make(chan error, 1)
		go func() {
			conn, err := front.Accept()
			if err == nil {
				err = Serve(context.Background(), conn, nil, func() *steer.Port { return set.Port(steer.TCP, 8080) }, appOnly(l.Addr().String()), blind{})
			}
			done <- err
		}()
		ask(b, front.Addr().String())
		<-done
	})
}

// BenchmarkPassage is what it takes to look at a request and its answer that are the
// app's, without carrying them.
func BenchmarkPassage(b *testing.B) {
	set, err := steer.Compile([]steer.Rule{steal()})
	if err != nil {
		b.Fatal(err)
	}
	p := NewPassage(func() *steer.Port { return set.Port(steer.TCP, 8080) }, blind{})
	request := []byte(get("/api/carts/17", "User-Agent: bench\r\nAccept: */*\r\nx-user: bob\r\n"))
	answer := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nok")
	b.ReportAllocs()
	for b.Loop() {
		if p.FromClient(request) != len(request) || p.FromApp(answer) != len(answer) {
			b.Fatal("it is not passed on")
		}
	}
}

type appOnly string

func (a appOnly) App(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(a))
}
func (a appOnly) Laptop(context.Context, *steer.Rule) (net.Conn, error) { return nil, errNoLaptop }

type blind struct{}

func (blind) Seen(steer.Seen) {}
