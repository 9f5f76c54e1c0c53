//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestProgramsThroughASteeredPort has the programs that people use speak to a
// port while it is steered: what matches to the laptop, the rest to the app.
func TestProgramsThroughASteeredPort(t *testing.T) {
	market(t, 1)
	alice.connect(t, "-n", "market")
	ip := stalls(t)[0]
	url := "http://" + ip + ":8080"

	t.Run("by request", func(t *testing.T) {
		alice.serveLocally(t, 3000, "laptop")
		alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice", "--client-address", "header")

		t.Run("curl", func(t *testing.T) {
			want(t, node1.cmd("curl", "-sS", "-i", "-H", "X-User: alice", url).must(t), "hello from laptop", "X-Forwarded-For-Was: ")
			want(t, node1.cmd("curl", "-sS", "--http2-prior-knowledge", "-H", "x-user: alice", url).must(t), "hello from laptop")
			want(t, node1.cmd("curl", "-sS", "-H", "x-user: bob", url).must(t), "hello from stall")
			// The body waits for the app's 100 Continue.
			want(t, node1.sh("head -c 20000000 /dev/zero | curl -sS -X POST -H 'Expect: 100-continue' --data-binary @- "+url+"/sink").must(t), "20000000 ")
			sum := node1.cmd("curl", "-sS", url+"/blob/sha256?size=50M").must(t)
			want(t, node1.sh("curl -sS '"+url+"/blob?size=50M' | sha256sum").must(t), sum)
		})
		t.Run("wrk", func(t *testing.T) {
			for what, flags := range map[string][]string{"the laptop's": {"-H", "x-user: alice"}, "the app's": {}} {
				out := node1.cmd(append([]string{"wrk", "-t2", "-c32", "-d3s", "--latency"}, append(flags, url+"/")...)...).must(t)
				if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") || !strings.Contains(out, "Requests/sec") {
					t.Errorf("%s", out)
				}
				report(t, "wrk, 32 connections, "+what, wrkLine(out))
			}
		})
		t.Run("h2load", func(t *testing.T) {
			for what, flags := range map[string][]string{"the laptop's": {"-H", "x-user: alice"}, "the app's": {}} {
				out := node1.cmd(append([]string{"h2load", "-n3000", "-c8", "-m16"}, append(flags, url+"/")...)...).must(t)
				want(t, out, "3000 succeeded, 0 failed, 0 errored, 0 timeout")
				report(t, "h2load, 8 connections with 16 streams, "+what, lineWith(out, "finished in"))
			}
		})
		t.Run("websocket", func(t *testing.T) {
			alice.start(t, "websocket", "127.0.0.1:3001")
			alice.steer(t, "deploy/stall", "8080:3001", "--path", "/chat", "--name", "chat")
			want(t, node1.role("chat", "ws://"+ip+":8080/chat", "500").must(t), "500 messages")
			want(t, node1.cmd("curl", "-sS", url).must(t), "hello from stall")
		})
		t.Run("grpc", func(t *testing.T) {
			alice.start(t, "health", "127.0.0.1:3002")
			node1.role("healthy", ip+":8080").mustFail(t) // the app is no gRPC server
			alice.steer(t, "deploy/stall", "8080:3002", "--grpc", "grpc.health.v1.Health/*", "--name", "health")
			want(t, node1.role("healthy", ip+":8080").must(t), "SERVING", "watched")
			want(t, node1.cmd("curl", "-sS", url).must(t), "hello from stall")
		})
		alice.podnet("steer", "stop", "--all").must(t)
	})

	t.Run("psql", func(t *testing.T) {
		postgres(t)
		alice.steer(t, "deploy/stall", "5432:15432")
		got := node1.cmd("psql", "-At", "postgres://postgres@"+ip+":5432/postgres?sslmode=disable", "-c", "select 6*7, inet_server_port()").must(t)
		if got != "42|15432" {
			t.Errorf("psql says %q", got)
		}
		alice.podnet("steer", "stop", "--all").must(t)
	})

	t.Run("udp", func(t *testing.T) {
		shout := alice.cmd("socat", "-T", "5", "UDP4-RECVFROM:9000,bind=127.0.0.1,fork", "SYSTEM:tr a-z A-Z").exec(t.Context())
		if err := shout.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = shout.Process.Kill(); _ = shout.Wait() })
		alice.steer(t, "deploy/stall", "5353/udp:9000")
		say := func() string { return node1.sh("echo ahoy | socat -T 2 - UDP:" + ip + ":5353").must(t) }
		eventually(t, 5*time.Second, "the laptop answers", func() error {
			if got := say(); got != "AHOY" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		alice.podnet("steer", "stop", "--all").must(t)
		eventually(t, 6*time.Second, "the app answers", func() error {
			if got := say(); got != "ahoy" {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	})
}

// lineWith is the first line that contains a piece.
func lineWith(text, piece string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, piece) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// wrkLine is what wrk found, on one line.
func wrkLine(out string) string {
	var all []string
	for _, piece := range []string{" 50% ", " 99% ", "Requests/sec"} {
		all = append(all, strings.Join(strings.Fields(lineWith(out, piece)), " "))
	}
	return strings.Join(all, ", ")
}

// postgres runs a real database on alice's port 15432 for the time of the test.
func postgres(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is not there, which bin/lab build installs: %v", err)
	}
	bin := found[len(found)-1]
	dir, err := os.MkdirTemp("", "podnet-e2e-postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := func(script string) command {
		return alice.cmd("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-c", script)
	}
	host("chown", "postgres:postgres", dir).must(t)
	as(fmt.Sprintf("%s/initdb --pgdata=%s/data --auth=trust --username=postgres --no-sync --no-instructions", bin, dir)).must(t)
	ctl := func(verb string) command {
		return as(fmt.Sprintf(`%s/pg_ctl --pgdata=%s/data --log=%s/log --wait --mode=fast -o "-p 15432 -k %s -c listen_addresses=127.0.0.1 -c fsync=off" %s`, bin, dir, dir, dir, verb))
	}
	ctl("start").must(t)
	t.Cleanup(func() { ctl("stop").try(t) })
}

// chatServer ADDRESS sends every WebSocket message back.
func chatServer(ctx context.Context, args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: websocket.Handler(func(c *websocket.Conn) {
		for text := ""; websocket.Message.Receive(c, &text) == nil && websocket.Message.Send(c, text) == nil; {
		}
	})}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// chat URL COUNT has so many messages sent back by a WebSocket server.
func chat(_ context.Context, args []string) error {
	c, err := websocket.Dial(args[0], "", "http://market.example")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	for i := range number(args[1]) {
		text, got := strings.Repeat(fmt.Sprintf("message %d ", i), 1+i), ""
		if err := websocket.Message.Send(c, text); err != nil {
			return err
		}
		if err := websocket.Message.Receive(c, &got); err != nil {
			return err
		}
		if got != text {
			return fmt.Errorf("message %d came back as %.100q", i, got)
		}
	}
	fmt.Printf("%s messages\n", args[1])
	return nil
}

// healthServer ADDRESS is a gRPC server that is well.
func healthServer(ctx context.Context, args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(l)
}

// healthy ADDRESS asks a gRPC server, by a call and by a stream, whether it is well.
func healthy(ctx context.Context, args []string) error {
	c, err := grpc.NewClient("passthrough:///"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(c)
	r, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	w, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	first, err := w.Recv()
	if err != nil {
		return err
	}
	fmt.Println(r.Status, "and watched", first.Status)
	return nil
}
