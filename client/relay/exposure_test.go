package relay

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// expose is an Exposure to which the other end of a world is the gateway.
func expose(name string, port uint16, protocol steer.Protocol, local string) Exposure {
	return Exposure{Name: name, Port: port, Protocol: protocol, Local: local, Gateways: []netip.Addr{agent6}}
}

func TestExposureTakesWhatGatewaysBring(t *testing.T) {
	port := listen(t, "127.0.0.1", echo)
	w := newWorld(t, rule("web", 20000, port))
	var mu sync.Mutex
	var over []Request
	defer w.relay.Subscribe(func(q Request) {
		mu.Lock()
		defer mu.Unlock()
		over = append(over, q)
	})()
	stranger := expose("shop/other", 20002, steer.TCP, port)
	stranger.Gateways = []netip.Addr{other6}
	w.relay.SetExposures([]Exposure{expose("shop/api", 20001, steer.TCP, port), stranger})
	if c, err := w.dial(20002); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("another gateway's: %v, %v", c, err)
	}
	w.mustDial(20000) // the rule is still there
	c := w.mustDial(20001)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	until(t, "a connection is counted", func() bool { return w.relay.Served("shop/api") == Served{Connections: 1} })

	dead := closedPort(t)
	w.relay.SetExposures([]Exposure{expose("shop/api", 20001, steer.TCP, dead)})
	if _, err := w.dial(20001); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused is %v", err)
	}
	why := "connection refused at 127.0.0.1:" + dead
	until(t, "a failure is counted", func() bool {
		return w.relay.Served("shop/api") == Served{Connections: 2, Failed: 1, Trouble: why}
	})
	until(t, "both are told of", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(over) == 2
	})
	if over[0].Rule != "shop/api" || over[0].In != 5 || over[0].Out != 5 || over[0].Error != "" || over[1].Error != why {
		t.Errorf("told of %+v", over)
	}
}

func TestExposuresAndRulesKeepApart(t *testing.T) {
	port := listen(t, "127.0.0.1", echo)
	w := newWorld(t, rule("web", 20000, port))
	w.relay.SetExposures([]Exposure{expose("shop/api", 20001, steer.TCP, port)})
	web, api := w.mustDial(20000), w.mustDial(20001)
	w.relay.SetRules(nil)
	_ = web.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := web.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read from a rule that is gone: %v", err)
	}
	if _, err := api.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = api.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := api.Read(make([]byte, 1)); err != nil {
		t.Errorf("read from an exposure that stays: %v", err)
	}
	if live := w.relay.Live(); len(live) != 0 {
		t.Errorf("a gateway is taken for an agent: %+v", live)
	}
	if _, err := w.dial(control.LivePort); err == nil {
		t.Error("a gateway is let in as an agent")
	}
	w.relay.SetExposures(nil)
	if _, err := api.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read from an exposure that is gone: %v", err)
	}
	if got := w.relay.Served("shop/api"); got != (Served{}) {
		t.Errorf("remembered %+v", got)
	}
}

func TestExposedDatagrams(t *testing.T) {
	w := newWorld(t)
	w.relay.SetExposures([]Exposure{expose("shop/dns", 20000, steer.UDP, udpEcho(t, "127.0.0.1", ">"))})
	if got := ask(t, w.dialUDP(20000), []byte("x"), 5*time.Second); string(got) != ">x" {
		t.Errorf("got %q", got)
	}
	w.relay.SetExposures([]Exposure{expose("shop/dns", 20001, steer.UDP, closedPort(t))})
	_ = ask(t, w.dialUDP(20001), []byte("x"), 100*time.Millisecond)
	until(t, "both flows are counted", func() bool {
		s := w.relay.Served("shop/dns")
		return s.Connections == 2 && s.Failed == 1 && strings.Contains(s.Trouble, "refused")
	})
}

// TestPorts: none is given while somebody has it.
func TestPorts(t *testing.T) {
	r, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if first, second := r.Port(), r.Port(); first != firstPort || second != firstPort+1 {
		t.Errorf("ports %d and %d", first, second)
	}
	r.SetRules([]Rule{rule("web", firstPort, "80")})
	r.SetExposures([]Exposure{expose("shop/api", firstPort+1, steer.TCP, "80")})
	r.next = 65535
	if last, next := r.Port(), r.Port(); last != 65535 || next != firstPort+2 {
		t.Errorf("ports %d and %d", last, next)
	}
}
