package report

import (
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

func TestVersionsThatDiffer(t *testing.T) {
	v := versions{Version: "1.4.0", Daemon: &localapi.Version{Version: "1.4.2"}, Gateways: []gatewayVersion{{"kind", "gw-0", "1.4.0"}, {"blue", "gw-0", "1.2.0"}, {"red", "gw-0", ""}}}
	var codes []string
	for _, w := range skews(v) {
		codes = append(codes, w.Code+" "+w.Connection+": "+w.Text)
	}
	want := "gateway-version blue: the gateway of blue is podnet 1.2.0, this is 1.4.0; gateway-version red: the gateway of red is older than those that say their version, this is 1.4.0"
	if got := strings.Join(codes, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	v.Daemon.Version, v.Gateways = "1.3.9", nil
	if got := skews(v); len(got) != 1 || got[0].Code != "daemon-version" {
		t.Errorf("%+v", got)
	}
}
