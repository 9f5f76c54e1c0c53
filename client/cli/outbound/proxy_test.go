package outbound_test

import (
	"context"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/localapi"
)

// proxied runs podnet proxy over a Proxy that is ready at once, at a given address.
func proxied(m *fakemachine.Machine, at string, asked *outbound.ProxyOptions, ended *bool) func(context.Context, outbound.ProxyOptions) error {
	return func(ctx context.Context, o outbound.ProxyOptions) error {
		*asked = o
		if m.Fail != nil {
			return m.Fail
		}
		o.Events(localapi.Event{Type: localapi.EventDone, Phase: "auth", Text: "alice"})
		o.Ready(at, o.Forwards)
		<-ctx.Done()
		*ended = true
		return nil
	}
}

func TestProxyWithCommand(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"HTTP_PROXY=http://office:3128"}
	var asked outbound.ProxyOptions
	ended := false
	m.Proxy = proxied(m, "127.0.0.1:1055", &asked, &ended)
	r := m.Podnet("proxy", "-n", "shop", "--forward", "0=db.shop:5432", "--forward", "53=dns.shop:53/udp", "--", "sh", "-c", "echo $all_proxy $HTTP_PROXY; exit 7")
	if r.Code != 7 || r.Out != "socks5h://127.0.0.1:1055 http://127.0.0.1:1055\n" || !ended {
		t.Errorf("exit status %d, ended %v: %s%s", r.Code, ended, r.Out, r.Stderr)
	}
	for _, say := range []string{"auth", "proxy at 127.0.0.1:1055", "tcp 127.0.0.1:0 leads to db.shop:5432", "udp 127.0.0.1:53 leads to dns.shop:53"} {
		if !strings.Contains(r.Stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.Stderr)
		}
	}
	if asked.Listen != "127.0.0.1:1055" || len(asked.Forwards) != 2 || asked.Request.Namespaces[0] != "shop" || asked.Request.LeaseSeconds != 300 {
		t.Errorf("asked for %+v", asked)
	}
	if m.Started != 0 {
		t.Error("a daemon was started")
	}
	m.Fail = &localapi.Error{Code: localapi.CodeConflict, Message: "port is taken", Hint: "another"}
	m.Podnet("proxy", "--", "true").Want(t, exit.Conflict, "port is taken")
}

func TestProxyUntilInterrupted(t *testing.T) {
	m := fakemachine.New(t)
	var asked outbound.ProxyOptions
	ended := false
	m.Proxy = proxied(m, "0.0.0.0:1055", &asked, &ended)
	ctx, interrupt := context.WithCancel(t.Context())
	m.When, m.Then = "export", interrupt
	r := m.PodnetContext(ctx, "proxy", "--listen", "0.0.0.0:1055")
	if !ended || !strings.HasPrefix(r.Out, "export ALL_PROXY=socks5h://127.0.0.1:1055 HTTP_PROXY=http://127.0.0.1:1055 ") || !strings.Contains(r.Stderr, "warning: whoever reaches 0.0.0.0:1055") {
		t.Errorf("exit status %d, ended %v:\n%s%s", r.Code, ended, r.Out, r.Stderr)
	}
}

func TestBadProxy(t *testing.T) {
	for line, says := range map[string]string{
		"--forward 5432":         "want [ADDRESS:]PORT=HOST:PORT",
		"--listen=":              "nobody could come in",
		"--listen localhost:1":   "no address with a port",
		"npm test":               "behind --",
		"--":                     "no command",
		"-n Shop":                "no name for a namespace",
		"--lease 1s":             "lease",
		"--path carrier-pigeons": "want auto",
	} {
		m := fakemachine.New(t)
		m.Proxy = func(context.Context, outbound.ProxyOptions) error { t.Errorf("%s: it began", line); return nil }
		m.Podnet(append([]string{"proxy"}, strings.Fields(line)...)...).Want(t, exit.Usage, says)
	}
}
