package relay

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/tunsplit"
)

func newKey(t *testing.T) key.Private {
	t.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func full(addrs ...netip.Addr) (ps []netip.Prefix) {
	for _, a := range addrs {
		ps = append(ps, netip.PrefixFrom(a, 128))
	}
	return ps
}

// TestThroughWireGuard is a laptop whose one tunnel carries the host's packets
// and the relay's, and which enrols again with another key.
func TestThroughWireGuard(t *testing.T) {
	laptopKey, agentKey := newKey(t), newKey(t)
	agentAddr := agentKey.Public().Address6()
	relay, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- relay.Run(ctx) }()

	binds := bindtest.NewChannelBinds()
	host := tuntest.NewChannelTUN()
	split := tunsplit.New(host.TUN(), relay.Device(), laptopKey.Public().RelayAddress6())
	laptop, err := tunnel.New(split, binds[0], tunnel.Config{PrivateKey: laptopKey})
	if err != nil {
		t.Fatal(err)
	}
	stack, err := netstack.New(netstack.Config{MTU: 1280})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := tunnel.New(stack.Device(), binds[1], tunnel.Config{PrivateKey: agentKey})
	if err != nil {
		t.Fatal(err)
	}
	if err := stack.AddAddress(agentAddr); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		laptop.Close()
		agent.Close()
		stack.Close()
	}()
	hostAddr := netip.MustParseAddr("198.18.0.5")
	enrol := func(k key.Private) {
		t.Helper()
		if err := laptop.SetPrivateKey(k); err != nil {
			t.Fatal(err)
		}
		relay.SetAddr(k.Public().RelayAddress6())
		split.SetAddr(k.Public().RelayAddress6())
		peers := []tunnel.Peer{{PublicKey: agentKey.Public(), Endpoint: "127.0.0.1:1", AllowedIPs: append(full(agentAddr), netip.MustParsePrefix("10.0.0.0/8"))}}
		if err := laptop.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
		peers = []tunnel.Peer{{PublicKey: k.Public(), Endpoint: "127.0.0.1:2", AllowedIPs: append(full(k.Public().RelayAddress6()), netip.PrefixFrom(hostAddr, 32))}}
		if err := agent.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	relay.SetRules([]Rule{{
		Name: "web", Port: 20000, Protocol: steer.TCP, Local: listen(t, "127.0.0.1", echo), Agents: map[netip.Addr]Pod{agentAddr: pod},
	}})

	for _, k := range []key.Private{laptopKey, newKey(t)} {
		enrol(k)
		dial := func(port uint16) net.Conn {
			t.Helper()
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			c, err := stack.DialTCP(ctx, netip.AddrPortFrom(k.Public().RelayAddress6(), port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		live := dial(control.LivePort)
		say(t, live, control.FromPod{Podnet: control.Version, PodUID: pod.UID})
		until(t, "the agent is connected", func() bool { return relay.Live()[0].Connected })

		c := dial(20000)
		sent := make([]byte, 4<<20)
		_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("what came back is not what was sent: %v", err)
		}
		// The host's own packets go on as ever.
		ping := tuntest.Ping(hostAddr, netip.MustParseAddr("10.0.0.1"))
		b := netstack.NewBuffer(len(ping))
		copy(b.B, ping)
		stack.Send(b, true)
		select {
		case p := <-host.Inbound:
			if !bytes.Equal(p, ping) {
				t.Errorf("the host got % x", p)
			}
		case <-time.After(10 * time.Second):
			t.Error("the host got nothing")
		}
	}
	if len(host.Inbound) > 0 {
		t.Error("the host got what is not its own")
	}
}
