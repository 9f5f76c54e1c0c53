package guest_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/wgconf"
)

// plain has a device of the administrator's own, as wg-quick makes one.
func plain(s *scene) (string, error) {
	x := client.NewExports(client.ExportsConfig{OpenCluster: func(localapi.Kube) (client.Cluster, error) { return far{s.away}, nil }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	made, err := x.Export(ctx, localapi.ExportRequest{Device: "phone", Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 900})
	if err != nil {
		return "", err
	}
	conf, err := wgconf.Parse(strings.NewReader(made.Config))
	if err != nil {
		return "", err
	}
	link := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "plain0", MTU: conf.MTU}}
	if err := netlink.LinkAdd(link); err != nil {
		return "", err
	}
	c, err := wgctrl.New()
	if err != nil {
		return "", err
	}
	defer c.Close()
	private, err := wgtypes.ParseKey(conf.PrivateKey.Base64())
	if err != nil {
		return "", err
	}
	p := conf.Peers[0]
	at, err := netip.ParseAddrPort(p.Endpoint)
	if err != nil {
		return "", err
	}
	peer := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.PublicKey), Endpoint: net.UDPAddrFromAddrPort(at), PersistentKeepaliveInterval: &p.Keepalive}
	for _, ip := range p.AllowedIPs {
		peer.AllowedIPs = append(peer.AllowedIPs, ipNet(ip))
	}
	err = c.ConfigureDevice(link.Name, wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{peer}})
	for _, a := range conf.Addresses {
		own := ipNet(a)
		err = errors.Join(err, netlink.AddrAdd(link, &netlink.Addr{IPNet: &own}))
	}
	err = errors.Join(err, netlink.LinkSetUp(link))
	for _, ip := range p.AllowedIPs {
		to := ipNet(ip)
		err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &to}))
	}
	if err != nil {
		return "", err
	}
	resolv := ""
	for _, d := range conf.DNS {
		if a, err := netip.ParseAddr(d); err == nil {
			resolv += "nameserver " + a.String() + "\n"
		}
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(resolv), 0o644); err != nil {
		return "", err
	}
	text, err := carried()
	return text, errors.Join(err, netlink.LinkDel(link))
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
