package client

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"podnet.dev/client/osdns"
)

func TestJudgeWays(t *testing.T) {
	want := netip.MustParseAddr("198.19.7.7")
	right := osdns.Way{Programs: "programs that use the C library", Addrs: []netip.Addr{want}}
	file := osdns.Way{Programs: "programs that read /etc/resolv.conf"}
	silent, other := file, file
	silent.Err = errors.New("192.0.2.53 knows no such name")
	other.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for _, tt := range []struct {
		ways []osdns.Way
		want string // in the error; "": none
	}{
		{[]osdns.Way{right}, ""},
		{[]osdns.Way{right, {Programs: "programs", Addrs: []netip.Addr{other.Addrs[0], want}}}, ""},
		{[]osdns.Way{silent, right}, "programs that read /etc/resolv.conf do not get the cluster's names: 192.0.2.53 knows no such name"},
		{[]osdns.Way{right, other}, "programs that read /etc/resolv.conf ask somebody else"},
	} {
		err := judgeWays(tt.ways, want)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.ways, err, tt.want)
		}
	}
}
