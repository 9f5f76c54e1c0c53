package dnsproxy

import (
	"context"
	"net"
	"testing"

	"github.com/miekg/dns"
)

// Connections and questions of one client leave room for another.
func TestStreamsOfOneClientLeaveRoom(t *testing.T) {
	const streams = 2 * streamShare
	addr, s := serveOn(t, HandlerFunc(func(ctx context.Context, r *Request) *dns.Msg {
		if r.Name() == "slow." {
			<-ctx.Done()
		}
		return new(dns.Msg)
	}), Options{MaxInFlight: 16, MaxPerClient: 8, MaxStreams: streams})
	greedy := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	wire, err := query("slow.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range streams {
		c, err := greedy.Dial("tcp", addr.String())
		if err != nil {
			t.Skip("no second loopback address: ", err)
		}
		defer c.Close()
		for range 2 * perStream {
			if writeFrame(c, wire) != nil {
				break // it had its share
			}
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := exchange(t, network, addr, query("fast.", dns.TypeA)); m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %v", network, m)
		}
	}
	if got := s.Stats().Queries; got > 8+2 {
		t.Errorf("%d questions taken, want those of the greedy one's share and two", got)
	}
}
