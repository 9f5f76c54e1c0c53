package serve

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"podnet.dev/internal/steer"
)

// BenchmarkPass is what steering costs those that it does not concern: a request
// and its answer straight to the app, by way of a Server whose rule does not match,
// and by way of one without a rule; on a connection that stays, and on a new one
// for each.
func BenchmarkPass(b *testing.B) {
	const request, answer = "GET / HTTP/1.1\r\nHost: a\r\nx-user: bob\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	app := serveTCP(b, func(c *net.TCPConn) {
		for buf := make([]byte, len(request)); ; {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			io.WriteString(c, answer)
		}
	})
	port := netip.MustParseAddrPort(app.String()).Port()
	r := requests()
	r.Port = port
	set, err := steer.Compile([]steer.Rule{r})
	if err != nil {
		b.Fatal(err)
	}
	through := func(rules *steer.Port) string {
		s := New(Config{
			Rules:    func(steer.Protocol, uint16) *steer.Port { return rules },
			Observer: func(PortKey) steer.Observer { return blind{} },
			Log:      slog.New(slog.DiscardHandler),
		})
		b.Cleanup(func() { s.Close() })
		redirects, err := s.Set([]PortKey{{steer.TCP, port}})
		if err != nil {
			b.Fatal(err)
		}
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), redirects[0].To).String()
	}
	ask := func(b *testing.B, conn net.Conn) {
		io.WriteString(conn, request)
		if _, err := io.ReadFull(conn, make([]byte, len(answer))); err != nil {
			b.Fatal(err)
		}
	}
	for _, way := range []struct{ name, addr string }{{"direct", app.String()}, {"http", through(set.Port(steer.TCP, port))}, {"splice", through(nil)}} {
		b.Run(way.name+"/kept", func(b *testing.B) {
			conn := dial(b, way.addr)
			b.ReportAllocs()
			for b.Loop() {
				ask(b, conn)
			}
		})
		b.Run(way.name+"/new", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				conn, err := net.Dial("tcp", way.addr)
				if err != nil {
					b.Fatal(err)
				}
				ask(b, conn)
				conn.Close()
			}
		})
	}
}

// BenchmarkBulk is how many bytes pass in a second.
func BenchmarkBulk(b *testing.B) {
	app := serveTCP(b, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	port := netip.MustParseAddrPort(app.String()).Port()
	s := New(Config{
		Rules:    func(steer.Protocol, uint16) *steer.Port { return nil },
		Observer: func(PortKey) steer.Observer { return blind{} },
		Log:      slog.New(slog.DiscardHandler),
	})
	b.Cleanup(func() { s.Close() })
	redirects, err := s.Set([]PortKey{{steer.TCP, port}})
	if err != nil {
		b.Fatal(err)
	}
	steered := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), redirects[0].To).String()
	for name, addr := range map[string]string{"direct": app.String(), "steered": steered} {
		b.Run(name, func(b *testing.B) {
			conn, piece := dial(b, addr), make([]byte, 64<<10)
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				if _, err := conn.Write(piece); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type blind struct{}

func (blind) Seen(steer.Seen) {}
