package forward_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
)

// tap is a gateway whose tunnel the test holds in its hands.
type tap struct {
	t *testing.T
	s *netstack.Stack
	f *forward.Forwarder

	stop func()
}

func newTap(t *testing.T, p forward.Policy) *tap {
	return newTapWith(t, p, netstack.Config{MTU: 16384}, forward.Options{})
}

func newTapWith(t *testing.T, p forward.Policy, c netstack.Config, o forward.Options) *tap {
	s, err := netstack.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f := forward.New(s, p, o)
	f.Rewrite(func(a netip.AddrPort) netip.AddrPort {
		switch a.Addr() {
		case pod4:
			return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port())
		case pod6:
			return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
		}
		return a
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	time.Sleep(10 * time.Millisecond)
	stop := func() { cancel(); <-done }
	t.Cleanup(func() { stop(); s.Close() })
	return &tap{t, s, f, stop}
}

func (w *tap) send(b []byte) {
	w.s.Device().Write([][]byte{b}, 0)
}

// read returns the next packet towards the peer.
func (w *tap) read() packet.Packet {
	w.t.Helper()
	timer := time.AfterFunc(5*time.Second, func() { w.s.Device().Close() })
	defer timer.Stop()
	buf := make([]byte, 65535)
	sizes := make([]int, 1)
	if _, err := w.s.Device().Read([][]byte{buf}, sizes, 0); err != nil {
		w.t.Fatal("no answer")
	}
	p, ok := packet.Parse(buf[:sizes[0]])
	if !ok {
		w.t.Fatalf("malformed answer % x", buf[:sizes[0]])
	}
	return p
}

// An ICMP error must quote the packet that it is about, or the peer's kernel
// does not believe it.
func (w *tap) wantUnreachable(about []byte, code4, code6 byte) {
	w.t.Helper()
	e := w.read()
	sent, _ := packet.Parse(about)
	b := e.Payload()
	kind, code := byte(3), code4
	if e.Is6() {
		kind, code = 1, code6
	}
	if !e.Err() || b[0] != kind || b[1] != code {
		w.t.Errorf("answer is ICMP %d/%d, want %d/%d", b[0], b[1], kind, code)
	}
	if e.Src != sent.Dst || e.Dst != sent.Src {
		w.t.Errorf("answer goes from %s to %s", e.Src, e.Dst)
	}
	if n := sent.L4 + 8; string(b[8:8+n]) != string(about[:n]) {
		w.t.Errorf("answer quotes % x, want % x", b[8:8+n], about[:n])
	}
}

func udpPacket(src, dst netip.AddrPort, payload string) []byte {
	hl := packet.HeaderIP(src.Addr()) + packet.HeaderUDP
	b := make([]byte, hl+len(payload))
	copy(b[hl:], payload)
	packet.PutUDP(b, src, dst)
	return b
}

func echoPacket(src, dst netip.Addr, id, seq uint16, payload string) []byte {
	hl := packet.HeaderIP(src) + packet.HeaderEcho
	b := make([]byte, hl+len(payload))
	copy(b[hl:], payload)
	packet.PutEchoRequest(b, src, dst, id, seq)
	return b
}

func synPacket(src, dst netip.AddrPort) []byte {
	hl := packet.HeaderIP(src.Addr())
	b := make([]byte, hl+20)
	packet.PutIP(b, packet.TCP, src.Addr(), dst.Addr())
	tcp := b[hl:]
	tcp[0], tcp[1] = byte(src.Port()>>8), byte(src.Port())
	tcp[2], tcp[3] = byte(dst.Port()>>8), byte(dst.Port())
	tcp[7], tcp[12], tcp[13], tcp[14] = 42, 5<<4, 2, 0xff // sequence number, length, SYN, window
	return b
}

func TestDenialsAreAnsweredAtOnce(t *testing.T) {
	w := newTap(t, &policy{deny: map[netip.Addr]bool{pod4: true, pod6: true}})
	for _, a := range []struct{ peer, pod netip.Addr }{{laptop4, pod4}, {laptop6, pod6}} {
		src, dst := netip.AddrPortFrom(a.peer, 4000), netip.AddrPortFrom(a.pod, 80)
		for _, b := range [][]byte{
			synPacket(src, dst),
			udpPacket(src, dst, "hello"),
			echoPacket(a.peer, a.pod, 7, 1, "ping"),
		} {
			w.send(b)
			w.wantUnreachable(b, 13, 1)
		}
	}
	if s := w.f.Stats(); s.Denied != 6 || s.OpenTCP+s.OpenUDP+s.OpenICMP > 0 {
		t.Errorf("stats: %+v", s)
	}
}

// inNamespace runs the test again in a network of its own, where the kernel
// can be told what to say.
func inNamespace(t *testing.T) (inside bool) {
	if os.Getenv("FORWARD_TEST_NAMESPACE") != "" {
		return true
	}
	script := `ip link set lo up &&
		ip route add default dev lo &&
		ip route add unreachable 10.1.0.1 &&
		ip route add prohibit 10.1.0.2 &&
		ip route add throw 10.1.0.3 && ip route del default &&
		echo 0 0 > /proc/sys/net/ipv4/ping_group_range || exit 99
		exec "$0" -test.v -test.run "^$1\$"`
	cmd := exec.Command("unshare", "-rn", "sh", "-c", script, os.Args[0], t.Name())
	cmd.Env = append(os.Environ(), "FORWARD_TEST_NAMESPACE=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != 99 && bytes.Contains(out, []byte("--- ")) {
		t.Errorf("in its own network namespace:\n%s", out)
	} else if err != nil {
		t.Skipf("no network namespace: %v: %s", err, out)
	}
	return false
}

func TestUnreachableTargets(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := newTap(t, &policy{})
	for addr, code := range map[string]byte{
		"10.1.0.1": 1,  // host unreachable
		"10.1.0.2": 13, // prohibited
		"10.1.0.3": 0,  // no route
	} {
		src, dst := netip.AddrPortFrom(laptop4, 4000), netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		for _, b := range [][]byte{
			synPacket(src, dst),
			udpPacket(src, dst, "hello"),
			echoPacket(src.Addr(), dst.Addr(), 7, 1, "ping"),
		} {
			w.send(b)
			w.wantUnreachable(b, code, 0)
		}
	}
	// The peer hears of a failure a moment before the flow is gone.
	eventually(t, "nothing is open", func() bool {
		s := w.f.Stats()
		return s.OpenTCP+s.OpenUDP+s.OpenICMP == 0
	})
	if s := w.f.Stats(); s.Failed != 9 {
		t.Errorf("stats: %+v", s)
	}
}

func TestOtherProtocolsAreRefused(t *testing.T) {
	w := newTap(t, &policy{})
	b := udpPacket(netip.AddrPortFrom(laptop4, 1), netip.AddrPortFrom(pod4, 2), "sctp?")
	packet.PutIP(b, 132, laptop4, pod4)
	w.send(b)
	w.wantUnreachable(b, 2, 1)
}

// Without the sysctl a ping is answered, though not by the pod.
func TestPingDenied(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range")
	if err != nil || strings.TrimSpace(string(b)) != "1\t0" {
		t.Skipf("ping sockets are allowed here: %s %v", b, err)
	}
	w := newTap(t, &policy{})
	ping := echoPacket(laptop4, pod4, 7, 1, "ping")
	w.send(ping)
	w.wantUnreachable(ping, 13, 1)
}

func TestPing(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := newTap(t, &policy{})
	for _, a := range []struct{ peer, pod netip.Addr }{{laptop4, pod4}, {laptop6, pod6}} {
		for seq := range uint16(3) {
			b := echoPacket(a.peer, a.pod, 77, seq, "are you there?")
			w.send(b)
			e := w.read()
			c := e.Payload()
			want := map[bool]byte{false: 0, true: 129}[e.Is6()]
			if e.Src != a.pod || e.Dst != a.peer || c[0] != want || string(c[4:]) != string(b[len(b)-18:]) {
				t.Errorf("echo reply %v to %v: % x", e.Src, e.Dst, c)
			}
		}
	}
	if s := w.f.Stats(); s.OpenICMP != 2 {
		t.Errorf("stats: %+v", s)
	}
}

// A peer that opens a connection and vanishes must not hold up the end.
func TestPeerVanishesInHandshake(t *testing.T) {
	w := newTap(t, &policy{})
	at := listen(t, pod4, echo)
	w.send(synPacket(netip.AddrPortFrom(laptop4, 4000), at))
	if p := w.read(); p.Proto != packet.TCP || p.Payload()[13] != 0x12 {
		t.Errorf("no SYN-ACK: % x", p.Data)
	}
	start := time.Now()
	w.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Run took %v to end", took)
	}
}
