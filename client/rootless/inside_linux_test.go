package rootless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/sandbox"
	"podnet.dev/e2e/town"
	"podnet.dev/internal/testpod"
)

// TestMain lets the test binary be the agent of a sandbox, and a program in it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "get" {
		r, err := http.Get(os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Println(n, err)
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		if err := sandbox.Agent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestInside has a session in a sandbox, and a program there that knows nothing of it
// reaches a Service by a name of two labels. The machine's own network stays as it is.
func TestInside(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		w := town.New(t, log, "podnet-gateway-0")
		room, err := sandbox.Open(t.Context(), sandbox.Options{Agent: []string{"/proc/self/exe", "agent"}, Log: log})
		var blocked *sandbox.BlockedError
		if errors.As(err, &blocked) {
			t.Skipf("no sandbox on this machine: %v (%s)", err, blocked.Hint())
		}
		if err != nil {
			t.Fatal(err)
		}
		defer room.Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- On(ctx, room.Session(nil), options(w, log).Session, func() { close(ready) }) }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatal("not ready")
		}
		for _, url := range []string{"http://web.shop/blob?size=100000", town.ShopURL + "/blob?size=100000"} {
			if out := ran(t, room, "/proc/self/exe", "get", url); out != "100000 <nil>\n" {
				t.Errorf("%s: %s", url, out)
			}
		}
		if out := ran(t, room, "/bin/cat", "/etc/resolv.conf"); out != "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.19.0.3\noptions ndots:5\n" {
			t.Errorf("resolv.conf:\n%s", out)
		}
		if addrs, err := net.InterfaceAddrs(); err != nil || strings.Contains(fmt.Sprint(addrs), w.Peers()[0].Status.Address4) {
			t.Errorf("the tunnel's address is this machine's: %v, %v", addrs, err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left := w.Peers(); len(left) > 0 {
			t.Errorf("left in the town: %v", left)
		}
		if out := ran(t, room, "/proc/self/exe", "get", town.ShopURL); !strings.Contains(out, "refused") && !strings.Contains(out, "no such host") {
			t.Errorf("after the session: %s", out)
		}
	})
}

// ran runs a program inside and returns what it says.
func ran(t *testing.T, room *sandbox.Sandbox, args ...string) string {
	t.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	_, err = room.Run(t.Context(), sandbox.Command{Path: args[0], Args: args, Env: os.Environ(), Dir: "/", Files: [3]*os.File{out, out, out}}, nil)
	_ = out.Close()
	if err != nil {
		t.Fatal(err)
	}
	return <-text
}
