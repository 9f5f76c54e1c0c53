package outbound_test

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// background is a machine whose Spawn runs podnet in this process.
func background(t *testing.T, m *fakemachine.Machine) (stop context.CancelFunc, asked *[]string) {
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	asked = new([]string)
	m.Spawn = func(args []string) (*outbound.Spawned, error) {
		*asked = args
		out, in := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			code := cli.Run(ctx, cli.Env{Env: caller.Env{In: strings.NewReader(""), Out: in, Err: io.Discard, Environ: m.Environ, Kube: fakemachine.NewKube()}, Host: outbound.Host{Proxy: m.Proxy}}, args)
			if code != 0 {
				_ = in.CloseWithError(io.EOF)
			}
			_ = in.Close()
		}()
		t.Cleanup(func() { stop(); out.Close(); <-done })
		return &outbound.Spawned{PID: 4711, Out: out, Log: "/state/proxy.log", Stop: func() error { stop(); return nil }}, nil
	}
	return stop, asked
}

func TestDetachedProxy(t *testing.T) {
	m := fakemachine.New(t)
	stop, asked := background(t, m)
	ended := make(chan struct{})
	m.Proxy = func(ctx context.Context, o outbound.ProxyOptions) error {
		defer close(ended)
		o.Events(localapi.Event{Type: localapi.EventDone, Phase: "auth", Text: "alice"})
		o.Events(localapi.Event{Type: localapi.EventReady})
		o.Ready("127.0.0.1:1055", []proxy.Forward{{Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:5432"), To: "db.shop:5432"}})
		o.Events(localapi.Event{Type: localapi.EventWarning, Text: "nobody hears of it"})
		<-ctx.Done()
		return nil
	}
	r := m.Podnet("proxy", "--detach", "-n", "shop", "--wait", "--forward", "5432=db.shop:5432")
	r.Want(t, 0, "auth", "proxy at 127.0.0.1:1055", "tcp 127.0.0.1:5432 leads to db.shop:5432")
	if !strings.HasPrefix(r.Out, "export ALL_PROXY=socks5h://127.0.0.1:1055 ") || !strings.Contains(r.Out, " PODNET_PROXY_PID=") || strings.Count(r.Out, "\n") != 1 {
		t.Errorf("printed %s", r.Out)
	}
	if last := (*asked)[len(*asked)-2:]; !slices.Equal(last, []string{"--detach=false", "--output=json-stream"}) || (*asked)[0] != "proxy" {
		t.Errorf("ran %q", *asked)
	}
	select {
	case <-ended:
		t.Error("it ended with its parent")
	default:
	}
	stop()
	<-ended
}

func TestDetachedProxyAsJSON(t *testing.T) {
	m := fakemachine.New(t)
	background(t, m)
	m.Proxy = func(ctx context.Context, o outbound.ProxyOptions) error {
		o.Ready("127.0.0.1:1055", o.Forwards)
		<-ctx.Done()
		return nil
	}
	r := m.Podnet("proxy", "--detach", "-o", "json")
	var p struct {
		Kind, Address, Log string
		Variables          map[string]string
		PID                int
		Forwards           []any
	}
	if err := json.Unmarshal([]byte(r.Out), &p); r.Code != 0 || err != nil || p.Kind != "Proxy" || p.Address != "127.0.0.1:1055" || p.Variables["ALL_PROXY"] != "socks5h://127.0.0.1:1055" || p.PID == 0 || p.Log != "/state/proxy.log" || p.Forwards == nil {
		t.Errorf("exit status %d, %v: %s%s", r.Code, err, r.Out, r.Stderr)
	}
}

// TestDetachedProxyFails as one in the foreground does, and names its log.
func TestDetachedProxyFails(t *testing.T) {
	m := fakemachine.New(t)
	background(t, m)
	m.Proxy = func(context.Context, outbound.ProxyOptions) error {
		return &localapi.Error{Code: localapi.CodeForbidden, Message: "alice may not", Hint: "ask for it", Phase: "gateway"}
	}
	m.Podnet("proxy", "--detach").Want(t, exit.Credentials, "error: alice may not (in phase gateway)\nhint: ask for it\nlog: /state/proxy.log\n")
	m = fakemachine.New(t)
	background(t, m)
	m.Proxy = func(ctx context.Context, _ outbound.ProxyOptions) error { <-ctx.Done(); return ctx.Err() }
	m.Podnet("proxy", "--detach", "--wait=50ms").Want(t, exit.Timeout, "not ready after 50ms", "log: /state/proxy.log")
	m.Podnet("proxy", "--wait=50ms").Want(t, exit.Timeout, "not ready after 50ms")
	m.Spawn = func([]string) (*outbound.Spawned, error) {
		return &outbound.Spawned{Out: io.NopCloser(strings.NewReader("")), Log: "/state/proxy.log"}, nil
	}
	m.Podnet("proxy", "--detach").Want(t, exit.Generic, "ended before it was ready", "log: /state/proxy.log")
	for line, says := range map[string]string{"--detach -- true": "one of the two", "-o json -- true": "one of the two", "-o xml": "want table"} {
		m.Podnet(append([]string{"proxy"}, strings.Fields(line)...)...).Want(t, exit.Usage, says)
	}
}
