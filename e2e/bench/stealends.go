package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/relay"
	"podnet.dev/gateway/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/tunsplit"
)

const (
	stealRule = "bench"
	stealUID  = "2f3c"
	relayPort = 20000
	appPort   = 8080
	freePort  = 8081 // of the same app, and not steered
	webAddr   = "127.0.0.1:3000"
)

// ends are those of a steered request. Both of ours are told of them on stdin.
type ends struct {
	Laptop, Gateway string // private keys
	Agent           key.Public
}

func readEnds() (laptop, gateway key.Private, agent key.Public, err error) {
	var e ends
	if err = json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return
	}
	if laptop, err = key.ParsePrivate(e.Laptop); err != nil {
		return
	}
	gateway, err = key.ParsePrivate(e.Gateway)
	return laptop, gateway, e.Agent, err
}

func only(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 128) }

// stealGateway is what of a gateway a steered request meets: the tunnel, the stack
// that passes packets from peer to peer, and the server that tells agents.
func stealGateway() error {
	laptop, private, agent, err := readEnds()
	if err != nil {
		return err
	}
	self, relayAddr := private.Public(), laptop.Public().RelayAddress6()
	stack, err := netstack.New(netstack.Config{})
	if err != nil {
		return err
	}
	if err := stack.AddAddress(self.Address6()); err != nil {
		return err
	}
	type pair struct{ from, to netip.Addr }
	tied := map[pair]bool{{agent.Address6(), relayAddr}: true, {relayAddr, agent.Address6()}: true}
	stack.Relay(func(p *packet.Packet) bool { return tied[pair{p.Src, p.Dst}] })
	t, err := tunnel.New(stack.Device(), transport.NewBind(transport.Options{}),
		tunnel.Config{PrivateKey: private, ListenPort: wgPort})
	if err != nil {
		return err
	}
	defer t.Close()
	err = t.SetPeers([]tunnel.Peer{
		{PublicKey: agent, AllowedIPs: []netip.Prefix{only(agent.Address6())}},
		{PublicKey: laptop.Public(), AllowedIPs: []netip.Prefix{only(relayAddr)}},
	})
	if err != nil {
		return err
	}
	l, err := stack.ListenTCP(netip.AddrPortFrom(self.Address6(), control.Port))
	if err != nil {
		return err
	}
	server := steering.NewServer(slog.New(slog.DiscardHandler), func() []control.Gateway {
		return []control.Gateway{{PublicKey: self, Endpoints: []netip.AddrPort{netip.MustParseAddrPort(podGateway)}}}
	})
	server.SetAgents([]steering.Agent{{
		Key: agent, PodUID: stealUID, Namespace: "shop", Pod: "web", Chosen: true,
		Rules: []control.Rule{{Laptop: relayAddr, RelayPort: relayPort, Rule: steer.Rule{
			Name: stealRule, Owner: "bench", Since: time.Unix(1, 0).UTC(), Protocol: steer.TCP, Port: appPort, Mode: steer.Steal,
			Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: "alice"}}}},
		}}},
	}}, func(netip.Addr) bool { return true })
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	wait(t.Done())
	cancel()
	return <-served
}

// stealLaptop is a laptop that takes steered requests: the host's TUN, the relay
// beside it, and the tunnel.
func stealLaptop() error {
	private, gateway, agent, err := readEnds()
	if err != nil {
		return err
	}
	host, err := tun.CreateTUN("wg0", mtu)
	if err != nil {
		return err
	}
	r, err := relay.New(nil)
	if err != nil {
		return err
	}
	addr := private.Public().RelayAddress6()
	r.SetAddr(addr)
	r.SetRules([]relay.Rule{{
		Name: stealRule, Port: relayPort, Protocol: steer.TCP, Local: webAddr,
		Agents: map[netip.Addr]relay.Pod{agent.Address6(): {Namespace: "shop", Name: "web", UID: stealUID, Object: stealRule}},
	}})
	t, err := tunnel.New(tunsplit.New(host, r.Device(), addr), transport.NewBind(transport.Options{}),
		tunnel.Config{PrivateKey: private, ListenPort: wgPort + 1})
	if err != nil {
		return err
	}
	defer t.Close()
	err = t.SetPeers([]tunnel.Peer{{
		PublicKey: gateway.Public(), Endpoint: laptopGateway, Keepalive: time.Second,
		AllowedIPs: []netip.Prefix{only(agent.Address6())},
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	wait(t.Done())
	cancel()
	return <-ran
}

// stealWeb answers each request with its name, or with as many bytes as the query
// says, at each address.
func stealWeb(name string, addrs []string) error {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := strconv.Atoi(r.URL.RawQuery); err == nil && n >= 0 {
			_, _ = w.Write(make([]byte, n))
			return
		}
		fmt.Fprint(w, name)
	})
	ended := make(chan error)
	for _, addr := range addrs {
		go func() { ended <- http.ListenAndServe(addr, answer) }()
	}
	return <-ended
}
