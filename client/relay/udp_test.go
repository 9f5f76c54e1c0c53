package relay

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

// udpEcho answers each datagram with prefix and itself.
func udpEcho(t *testing.T, host, prefix string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil && host == "::1" {
		t.Skipf("this machine's loopback has no IPv6: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(prefix), b[:n]...), from)
		}
	}()
	return strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port)
}

func udpRule(name string, port uint16, local string) Rule {
	r := rule(name, port, local)
	r.Protocol = steer.UDP
	return r
}

func (w *world) dialUDP(port uint16) net.Conn {
	w.t.Helper()
	c, err := w.agent.DialUDP(netip.AddrPortFrom(relay6, port))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// ask sends b and returns the answer, nil if none comes in time.
func ask(t *testing.T, c net.Conn, b []byte, within time.Duration) []byte {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	answer := make([]byte, 65535)
	n, err := c.Read(answer)
	if err != nil {
		return nil
	}
	return answer[:n]
}

func TestDatagramsGoAndComeBack(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			port := udpEcho(t, host, ">")
			w := newWorld(t, udpRule("dns", 20000, port))
			one, two := w.dialUDP(20000), w.dialUDP(20000)
			for _, size := range []int{1, 1000, 1300, 9000, 40000} { // larger ones in fragments
				for id, c := range []net.Conn{one, two} {
					b := bytes.Repeat([]byte{byte('a' + id)}, size)
					if got := ask(t, c, b, 5*time.Second); !bytes.Equal(got, append([]byte(">"), b...)) {
						t.Errorf("client %d got %d bytes for %d", id, len(got), size)
					}
				}
			}
		})
	}
}

func TestDeadUDPPortIsSaid(t *testing.T) {
	dead := closedPort(t)
	w := newWorld(t, udpRule("dns", 20000, dead))
	if got := ask(t, w.dialUDP(20000), []byte("x"), 100*time.Millisecond); got != nil {
		t.Errorf("got %q", got)
	}
	want := "connection refused at 127.0.0.1:" + dead
	until(t, want, func() bool { return w.relay.Live()[0].Rules[0].Trouble == want })
	w.relay.SetRules([]Rule{udpRule("dns", 20000, udpEcho(t, "127.0.0.1", ""))})
	if got := ask(t, w.dialUDP(20000), []byte("x"), 5*time.Second); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	if got := w.relay.Live()[0].Rules[0].Trouble; got != "" {
		t.Errorf("the program is there, the trouble %q remains", got)
	}
}

func TestUDPEndsWithTheRule(t *testing.T) {
	port := udpEcho(t, "127.0.0.1", "")
	w := newWorld(t, udpRule("dns", 20000, port), rule("web", 20001, port))
	c := w.dialUDP(20000)
	if got := ask(t, c, []byte("x"), 5*time.Second); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	if got := ask(t, w.dialUDP(20001), []byte("x"), 200*time.Millisecond); got != nil {
		t.Errorf("a TCP rule answers to UDP: %q", got)
	}
	w.relay.SetRules([]Rule{rule("web", 20001, port)})
	until(t, "the flow is gone", func() bool {
		w.relay.udp.mu.Lock()
		defer w.relay.udp.mu.Unlock()
		return len(w.relay.udp.flows) == 0
	})
	if got := ask(t, c, []byte("x"), 200*time.Millisecond); got != nil {
		t.Errorf("got %q from a rule that is gone", got)
	}
}
