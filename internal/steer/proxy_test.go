package steer

import (
	"net"
	"strings"
	"testing"
)

func TestProxyHeader(t *testing.T) {
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	addr := func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }
	for _, c := range []struct {
		from, to net.Addr
		want     string
	}{
		{addr("192.0.2.1:258"), addr("[::ffff:192.0.2.2]:80"), "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x01\x02\x00\x50"},
		{addr("[fd00::1]:1"), addr("192.0.2.2:2"), "\x21\x21\x00\x24\xfd" + strings.Repeat("\x00", 14) + "\x01" +
			strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x02\x00\x01\x00\x02"},
		{&net.UnixAddr{}, addr("192.0.2.2:2"), "\x21\x00\x00\x00"},
	} {
		if got := AppendProxyHeader(nil, c.from, c.to); string(got) != signature+c.want {
			t.Errorf("%s: %x", c.from, got)
		}
	}
}
