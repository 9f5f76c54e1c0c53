package cli

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// proxied runs podnet proxy over a Proxy that is ready at once, at a given address.
func proxied(m *machine, at string, asked *ProxyOptions, ended *bool) func(context.Context, ProxyOptions) error {
	return func(ctx context.Context, o ProxyOptions) error {
		*asked = o
		if m.fail != nil {
			return m.fail
		}
		o.Events(localapi.Event{Type: localapi.EventDone, Phase: "auth", Text: "alice"})
		o.Ready(at, o.Forwards)
		<-ctx.Done()
		*ended = true
		return nil
	}
}

func TestProxyWithCommand(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"HTTP_PROXY=http://office:3128"}
	var asked ProxyOptions
	ended := false
	m.proxy = proxied(m, "127.0.0.1:1055", &asked, &ended)
	r := m.podnet("proxy", "-n", "shop", "--forward", "0=db.shop:5432", "--forward", "53=dns.shop:53/udp", "--", "sh", "-c", "echo $all_proxy $HTTP_PROXY; exit 7")
	if r.code != 7 || r.out != "socks5h://127.0.0.1:1055 http://127.0.0.1:1055\n" || !ended {
		t.Errorf("exit status %d, ended %v: %s%s", r.code, ended, r.out, r.stderr)
	}
	for _, say := range []string{"auth", "proxy at 127.0.0.1:1055", "tcp 127.0.0.1:0 leads to db.shop:5432", "udp 127.0.0.1:53 leads to dns.shop:53"} {
		if !strings.Contains(r.stderr, say) {
			t.Errorf("%q is not in\n%s", say, r.stderr)
		}
	}
	if asked.Listen != "127.0.0.1:1055" || len(asked.Forwards) != 2 || asked.Request.Namespaces[0] != "shop" || asked.Request.LeaseSeconds != 300 {
		t.Errorf("asked for %+v", asked)
	}
	if m.started != 0 {
		t.Error("a daemon was started")
	}
	m.fail = &localapi.Error{Code: localapi.CodeConflict, Message: "port is taken", Hint: "another"}
	m.podnet("proxy", "--", "true").want(t, exit.Conflict, "port is taken")
}

func TestProxyUntilInterrupted(t *testing.T) {
	m := newMachine(t)
	var asked ProxyOptions
	ended := false
	m.proxy = proxied(m, "0.0.0.0:1055", &asked, &ended)
	ctx, interrupt := context.WithCancel(t.Context())
	m.when, m.then = "export", interrupt
	r := m.podnetContext(ctx, "proxy", "--listen", "0.0.0.0:1055")
	if !ended || !strings.HasPrefix(r.out, "export ALL_PROXY=socks5h://127.0.0.1:1055 HTTP_PROXY=http://127.0.0.1:1055 ") || !strings.Contains(r.stderr, "warning: whoever reaches 0.0.0.0:1055") {
		t.Errorf("exit status %d, ended %v:\n%s%s", r.code, ended, r.out, r.stderr)
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
		m := newMachine(t)
		m.proxy = func(context.Context, ProxyOptions) error { t.Errorf("%s: it began", line); return nil }
		m.podnet(append([]string{"proxy"}, strings.Fields(line)...)...).want(t, exit.Usage, says)
	}
}

func TestProxyVariables(t *testing.T) {
	for _, at := range []string{"127.0.0.1:1055", "[::]:80"} {
		got := strings.Join(proxyVariables(at), " ")
		if strings.Contains(got, "[::]") || !strings.Contains(got, " https_proxy=http://127.0.0.1:") {
			t.Errorf("%s: %s", at, got)
		}
	}
	if env := proxyEnviron([]string{"A=1"}, ""); len(env) != 1 {
		t.Errorf("%v", env)
	}
	f := proxy.Forward{Network: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:1"), To: "a:2"}
	if f.String() != "127.0.0.1:1=a:2/tcp" {
		t.Errorf("%s", f)
	}
}
