package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

const servicePort = 80

// newFront puts a Front before an app, and returns where it listens.
func newFront(t *testing.T, g *fakeGateway, app func(context.Context, uint16) (*net.TCPConn, error)) (f *Front, private key.Private, at uint16) {
	t.Helper()
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	f, err = NewFront(FrontConfig{
		Service: podUID, Key: private, Gateways: []control.Gateway{g.entry()}, App: app, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Listen: func(ctx context.Context) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	open, err := f.Set([]uint16{servicePort})
	if err != nil || len(open) != 1 {
		t.Fatalf("listens at %v: %v", open, err)
	}
	return f, private, open[servicePort]
}

// TestFrontPassesOnWhateverHappens is the life of a Front with one rule.
func TestFrontPassesOnWhateverHappens(t *testing.T) {
	t.Parallel()
	var g *fakeGateway
	g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
	laptop := newLaptop(t, "laptop", g)
	pod := httptest.NewServer(answer("app"))
	t.Cleanup(pod.Close)
	f, private, at := newFront(t, g, func(ctx context.Context, port uint16) (*net.TCPConn, error) {
		if port != servicePort {
			return nil, errors.New("asked for another port")
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", pod.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	})
	rule := laptop.rule("alice-web", header("alice"))
	rule.Port = servicePort

	if got := getAt(at, "alice"); got != "app" {
		t.Fatalf("before there is a rule: %s", got)
	}
	g.admit(private.Public(), true, rule)
	took := until(t, 3*time.Second+late, "the laptop answers", func() bool { return getAt(at, "alice") == "laptop" })
	t.Logf("the laptop answers %v after the gateway admitted the Front", took.Round(time.Millisecond))
	if got := getAt(at, "bob"); got != "app" {
		t.Errorf("bob: %s", got)
	}
	until(t, late, "the gateway hears that the rule is in force", func() bool {
		r, ok := g.server.Report(private.Public())
		return ok && r.PodUID == podUID && r.InForce["alice-web"]
	})
	until(t, 2*control.Beat+late, "the laptop hears of its rule", func() bool {
		rules, events, _ := laptop.told()
		return slices.Equal(rules, []string{"alice-web"}) && len(events) > 0
	})

	kept := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
	t.Cleanup(kept.CloseIdleConnections)
	ask := func() string {
		request, err := http.NewRequest(http.MethodGet, "http://"+netAddr(at), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("x-user", "alice")
		response, err := kept.Do(request)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	if got := ask(); got != "laptop" {
		t.Errorf("on a connection that is kept: %s", got)
	}
	laptop.silence(true)
	took = until(t, 4*time.Second+late, "the app serves a silent laptop's users", func() bool { return getAt(at, "alice") == "app" })
	t.Logf("the app answers %v after the laptop's last word", took.Round(time.Millisecond))
	if got := ask(); got != "app" {
		t.Errorf("on the connection that was kept: %s", got)
	}
	laptop.silence(false)
	until(t, 4*time.Second+late, "the laptop is back", func() bool { return getAt(at, "alice") == "laptop" })

	g.admit(private.Public(), true)
	until(t, late, "the app serves when no rule is left", func() bool { return getAt(at, "alice") == "app" })
	f.Retire()
	for range 3 {
		if got := ask(); got != "app" {
			t.Errorf("on the connection that was kept, after it has retired: %s", got)
		}
		if got := getAt(at, "alice"); got != "app" {
			t.Errorf("after it has retired: %s", got)
		}
	}
	until(t, late, "only the connection that was kept is open", func() bool { return f.Conns() == 1 })
}

// A Front is not in its app's pod: what listens where it is itself does not matter,
// and an app that refuses is refused.
func TestFrontRefusesWhereTheAppDoes(t *testing.T) {
	t.Parallel()
	var g *fakeGateway
	g = newGateway(t, func() []control.Gateway { return []control.Gateway{g.entry()} })
	f, _, at := newFront(t, g, func(context.Context, uint16) (*net.TCPConn, error) { return nil, errors.New("no pod is ready") })
	if got := getAt(at, "alice"); !strings.Contains(got, "reset") && !strings.Contains(got, "EOF") {
		t.Errorf("got %q", got)
	}
	if taken, err := f.in.take(portKeys(steer.TCP, servicePort, 81)); err != nil || !slices.Equal(taken, portKeys(steer.TCP, servicePort)) {
		t.Errorf("takes %v, %v", taken, err)
	}
	if taken, err := f.in.take(portKeys(steer.UDP, servicePort)); err != nil || len(taken) != 0 {
		t.Errorf("takes %v, %v", taken, err)
	}
	open, err := f.Set([]uint16{servicePort, 81})
	if err != nil || len(open) != 2 || open[servicePort] != at {
		t.Errorf("listens at %v: %v", open, err)
	}
}

func netAddr(port uint16) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
}

func portKeys(p steer.Protocol, ports ...uint16) (keys []serve.PortKey) {
	for _, port := range ports {
		keys = append(keys, serve.PortKey{Protocol: p, Port: port})
	}
	return keys
}
