package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper/remote"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

// role makes the test binary one of the programs of these stories.
const role = "PODNET_TEST_ROLE"

const (
	socket   = "/run/podnet/helper.sock"
	operator = 21001
	another  = 21002 // operator
	stranger = 65534
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "helper":
		err = run(ctx, os.Args[1:])
	case "user":
		err = connect(os.Args[1])
	case "wish":
		err = wish(os.Args[1:])
	case "names":
		err = names()
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// become gives root up for good.
func become(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

var own = netip.MustParseAddr("198.18.0.5")

// connect is an ordinary user's podnet, as far as the host is concerned. It ends
// with standard input, or with the helper.
func connect(uid string) error {
	if err := become(uid); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := remote.Open(ctx, socket, func(string) {})
	if err != nil {
		return err
	}
	dev, err := s.TUN(1420)
	if err != nil {
		return err
	}
	name, err := dev.Name()
	if err != nil {
		return err
	}
	err = s.SetNetwork(router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}, Routes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, MTU: 1400})
	if err != nil {
		return err
	}
	if mtu, err := dev.MTU(); err != nil || mtu != 1400 {
		return fmt.Errorf("MTU %d, %w", mtu, err)
	}
	if _, _, err := s.ListenDNS(ctx, []netip.Addr{own, own}); err == nil {
		return errors.New("port 53 twice on one address")
	}
	packets, streams, err := s.ListenDNS(ctx, []netip.Addr{own})
	if err != nil {
		return err
	}
	wish := osdns.Config{Link: name, Servers: []netip.Addr{own}, MatchDomains: []string{"cluster.local", "svc", "com"}, SearchDomains: []string{"shop.svc.cluster.local"}}
	if err := s.SetDNS(ctx, wish); err != nil {
		return err
	}
	if base, mode := s.DNS(); len(base) != 1 || base[0] != netip.MustParseAddrPort("192.0.2.53:53") || mode != osdns.ModeDirect {
		return fmt.Errorf("the resolvers are %v by %s", base, mode)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		carry(dev)
	}()
	fmt.Println("connected", name)
	asked := make(chan struct{})
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); close(asked) }()
	select {
	case <-over:
		fmt.Println("over")
		return nil
	case <-asked:
	}
	err = s.SetDNS(ctx, osdns.Config{})
	for i := range packets {
		err = errors.Join(err, packets[i].Close(), streams[i].Close())
	}
	err = errors.Join(err, dev.Close(), s.Close())
	<-over
	fmt.Println("disconnected")
	return err
}

// carry reads what the host sends until the device ends, and tells of the first
// packet to 10.96.0.10.
func carry(dev tun.Device) {
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	for told := false; ; {
		n, err := dev.Read(bufs, sizes, 16)
		if err != nil {
			return
		}
		for i := range n {
			p := bufs[i][16 : 16+sizes[i]]
			if len(p) > 20 && p[0]>>4 == 4 && netip.AddrFrom4([4]byte(p[16:20])) == netip.MustParseAddr("10.96.0.10") && !told {
				fmt.Println("packet")
				told = true
			}
		}
	}
}

// wish is a user who asks for too much, one thing after another.
func wish(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	s, err := remote.Open(context.Background(), socket, func(string) {})
	if err != nil {
		g, _, look := remote.Look(context.Background(), socket)
		fmt.Println("operator", g.Operator, look)
		return err
	}
	defer s.Close()
	dev, err := s.TUN(1420)
	if err != nil {
		return err
	}
	defer dev.Close()
	name, err := dev.Name()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		kind, text, _ := strings.Cut(in.Text(), " ")
		want := router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}}
		switch kind {
		case "route":
			want.Routes = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "shared":
			want.Shared = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "routes":
			for i := range 1025 {
				want.Routes = append(want.Routes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
			}
			err = s.SetNetwork(want)
		case "address":
			want.Addresses = []netip.Prefix{netip.MustParsePrefix(text)}
			err = s.SetNetwork(want)
		case "domain":
			err = s.SetDNS(context.Background(), osdns.Config{Link: name, Servers: []netip.Addr{own}, MatchDomains: []string{text}})
		case "port":
			_, _, err = s.ListenDNS(context.Background(), []netip.Addr{netip.MustParseAddr(text)})
		case "reset":
			var n int
			if n, err = s.ResetFlows(context.Background(), []netip.Addr{netip.MustParseAddr(text)}); err == nil {
				fmt.Println("ended", n)
				continue
			}
		case "close": // and the device is kept
			err = s.Close()
		}
		fmt.Println(err)
	}
	return nil
}
