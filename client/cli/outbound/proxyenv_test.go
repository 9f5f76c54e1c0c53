package outbound

import (
	"net/netip"
	"strings"
	"testing"

	"podnet.dev/client/proxy"
)

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
