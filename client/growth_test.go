package client_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/daemon"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/client/userspace"
	"podnet.dev/e2e/crowd"
	"podnet.dev/e2e/town"
)

// TestNothingStaysOfSessions: a daemon whose user connects, works, exposes a port, roams and
// disconnects holds no more after thirty times than it did after five. What one session leaves
// behind shows here; what it gathers in a day, in the lab's soak.
func TestNothingStaysOfSessions(t *testing.T) {
	w := newTown(t, "podnet-gateway-0")
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go answer(local)
	l := &laptop{t: t, wire: crowd.NewWire(), news: make(chan netwatch.Event)}
	defer l.wire.Close()
	c, begun := w.daemon(l)
	request := localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60, Path: client.PathAuto}
	expose := localapi.ExposeRequest{Name: "my-api", Local: local.Addr().String(), Ports: []uint16{80}}

	const settled, rounds = 5, 30
	var bytes uint64
	var goroutines int
	for round := range rounds {
		if round == settled {
			bytes, goroutines = held()
		}
		if _, err := c.Connect(t.Context(), request, func(localapi.Event) {}); err != nil {
			t.Fatal(err)
		}
		one := <-begun
		l.session, l.host = one.session, one.host
		l.visit()
		if _, err := c.Expose(t.Context(), expose, func(localapi.ExposeEvent) {}); err != nil {
			t.Fatal(err)
		}
		if !w.reaches("tcp", "my-api", 80) {
			t.Fatal("the name does not lead to the laptop")
		}
		l.wire.Rebind()
		l.news <- netwatch.Event{Kind: netwatch.Changed, Text: "new: wlan0 192.0.2.7/24"}
		l.visit()
		if _, err := c.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	nowBytes, nowGoroutines := held()
	t.Logf("%.1f MiB and %d goroutines after %d rounds, %.1f MiB and %d after %d", float64(bytes)/(1<<20), goroutines, settled, float64(nowBytes)/(1<<20), nowGoroutines, rounds)
	// A session has some 20 MiB and forty goroutines.
	if nowBytes > bytes+4<<20 || nowGoroutines > goroutines+4 {
		t.Error("something stays of each")
	}
}

// housed is a session, and the host that it is on.
type housed struct {
	session *client.Session
	host    *userspace.Host
}

// daemon runs a user's daemon until the test is over. Its sessions come by the channel.
func (w *place) daemon(l *laptop) (*localapi.Client, <-chan housed) {
	w.t.Helper()
	cluster := steerable{crowd.Over(l.wire, w.Cluster()), w.Cluster().(pods), w.Cluster().(names)}
	begun := make(chan housed, 1)
	o := daemon.Options{Socket: filepath.Join(w.t.TempDir(), "run", "d.sock"), Log: w.log}
	o.NewSession = func(req localapi.ConnectRequest, events func(localapi.Event)) daemon.Session {
		host := userspace.New(userspace.Config{Log: w.log})
		s := client.New(client.Config{
			Request: req, Events: events, Dial: host.Dial, Watch: l.watch, Log: w.log,
			OpenCluster: func(localapi.Kube) (client.Cluster, error) { return cluster, nil },
			OpenHelper:  func(context.Context, func(string)) (helper.Session, error) { return host, nil },
		})
		begun <- housed{s, host}
		return s
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx, o) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	c := localapi.NewClient(o.Socket)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := c.Version(w.t.Context()); err == nil {
			return c, begun
		} else if time.Now().After(end) {
			w.t.Fatal(err)
		}
	}
}

// visit makes a flow, uses it, and ends it so that nothing of it is left at its other end.
func (l *laptop) visit() {
	l.t.Helper()
	flow, err := l.open()
	for i := 0; err != nil && i < 5; i++ { // a question may have been lost on the way to another network
		flow, err = l.open()
	}
	if err != nil {
		l.t.Fatalf("%s: %v", town.EchoAddr, err)
	}
	defer flow.Close()
	if err := flow.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, flow); err != nil {
		l.t.Fatal(err)
	}
}

// held is what this process holds: of its heap, and goroutines. What pools and finalizers
// have is let go of in the second and third collection.
func held() (bytes uint64, goroutines int) {
	for range 4 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}
