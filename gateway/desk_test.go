package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/overview"
)

// An administrator asks at the desk, twice, and sees who is there and what moves.
func TestOverview(t *testing.T) {
	s := setStage(t)
	g, _ := s.start("podnet-gateway-0")
	web := s.pod("shop", "web", "10.96.1.1")
	l := s.enrol("laptop", 300, "shop")
	l.connect(g, netip.PrefixFrom(web.Addr(), 32))
	c, err := l.dial(web, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in, more := io.Pipe()
	out, answers := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- top(ctx, deskAddress(g.streamPort()), in, answers) }()
	lines := bufio.NewReader(out)
	look := func() (o overview.Gateway) {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &o)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if len(o.Peers) != 1 {
			t.Fatalf("%+v", o)
		}
		return o
	}
	first := look()
	p := first.Peers[0]
	if first.Pod != "podnet-gateway-0" || !first.Leader || !first.PoliciesHold || first.MemoryUsed == 0 ||
		p.Name != "laptop" || p.User != "alice" || p.Device != "laptop" || len(p.Namespaces) != 1 || p.Path != "udp" || !strings.HasPrefix(p.From, "127.0.0.1:") ||
		p.Connections != 1 || p.BytesUp == 0 || !p.Here(first.Time) {
		t.Errorf("%+v", first)
	}
	if err := echo(c); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(more, "\n"); err != nil {
		t.Fatal(err)
	}
	if second := look(); second.Peers[0].BytesUp <= p.BytesUp || !second.Time.After(first.Time) {
		t.Errorf("%+v after %+v", second, first)
	}
	_ = more.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
