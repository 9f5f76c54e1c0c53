package rootless

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
	"podnet.dev/e2e/town"
)

// TestProxy reaches a town by every way in, and what is not the town's as well, and
// leaves nothing there.
func TestProxy(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	w := town.New(t, log, "podnet-gateway-0")
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "outside") }))
	t.Cleanup(outside.Close)
	echo, err := proxy.ParseForward("0=" + town.EchoAddr)
	if err != nil {
		t.Fatal(err)
	}
	var at string
	var forwards []proxy.Forward
	ready := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	o := options(w, log)
	o.Forwards = []proxy.Forward{echo}
	o.Ready = func(a string, f []proxy.Forward) { at, forwards = a, f; close(ready) }
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	for _, scheme := range []string{"socks5h", "http"} {
		web := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: scheme, Host: at}), DisableKeepAlives: true}}
		for where, size := range map[string]int{town.ShopURL + "/blob?size=100000": 100000, outside.URL: len("outside")} {
			r, err := web.Get(where)
			if err != nil {
				t.Errorf("%s by %s: %v", where, scheme, err)
				continue
			}
			body, err := io.ReadAll(r.Body)
			if r.Body.Close(); len(body) != size || err != nil {
				t.Errorf("%s by %s: %d bytes, %v", where, scheme, len(body), err)
			}
		}
	}
	conn, err := net.Dial("tcp", forwards[0].Listen.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "question")
	b := make([]byte, 8)
	if _, err := io.ReadFull(conn, b); string(b) != "question" {
		t.Errorf("%q, %v", b, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left := w.Peers(); len(left) > 0 {
		t.Errorf("left in the town: %v", left)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("the proxy is still there")
	}
}

func options(w *town.Town, log *slog.Logger) Options {
	return Options{
		Listen: "127.0.0.1:0",
		Session: client.Config{
			Request:     localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60, Path: client.PathAuto},
			Events:      func(localapi.Event) {},
			OpenCluster: func(localapi.Kube) (client.Cluster, error) { return w.Cluster(), nil },
			Log:         log,
		},
	}
}

// TestPortTaken costs nobody a session.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := slog.New(slog.DiscardHandler)
	w := town.New(t, log, "podnet-gateway-0")
	o := options(w, log)
	var told sync.Once
	o.Session.Events = func(localapi.Event) { told.Do(func() { t.Error("a session was begun") }) }
	o.Listen = l.Addr().String()
	var e *localapi.Error
	if err := Run(t.Context(), o); !errors.As(err, &e) || e.Code != localapi.CodeConflict || !strings.Contains(e.Hint, "--listen") {
		t.Errorf("%v", err)
	}
	o.Listen, o.Forwards = "127.0.0.1:0", []proxy.Forward{{Network: "tcp", Listen: l.Addr().(*net.TCPAddr).AddrPort(), To: "db.shop:5432"}}
	if err := Run(t.Context(), o); !errors.As(err, &e) || e.Code != localapi.CodeConflict || !strings.Contains(e.Hint, "--forward 0=db.shop:5432") {
		t.Errorf("%v", err)
	}
}
