package main

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun/netstack"
)

// runNetstack is the yardstick for what a gateway is that stands on wireguard-go's
// own tun/netstack, as most unprivileged WireGuard servers do: it has the pod's
// address within the tunnel and copies what comes there to the pod.
func runNetstack() error {
	t, inside, err := netstack.CreateNetTUN([]netip.Addr{netip.MustParseAddr(podIP)}, nil, mtu)
	if err != nil {
		return err
	}
	return runUpstream(t, func() error {
		for _, addr := range []string{echoAddr, iperfAddr} {
			ln, err := inside.ListenTCPAddrPort(netip.MustParseAddrPort(addr))
			if err != nil {
				return err
			}
			go acceptTCP(ln)
		}
		pc, err := inside.ListenUDPAddrPort(netip.MustParseAddrPort(udpAddr))
		if err != nil {
			return err
		}
		go forwardUDP(pc)
		return nil
	})
}

func acceptTCP(ln net.Listener) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
			if err != nil {
				return
			}
			defer out.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.Copy(out, in)
				_ = out.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(in, out)
			if c, ok := in.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
			<-done
		}()
	}
}

// forwardUDP has a socket for each peer's port.
func forwardUDP(in net.PacketConn) {
	var mu sync.Mutex
	flows := map[string]net.Conn{}
	b := make([]byte, 65536)
	for {
		n, from, err := in.ReadFrom(b)
		if err != nil {
			return
		}
		mu.Lock()
		out := flows[from.String()]
		mu.Unlock()
		if out == nil {
			if out, err = net.Dial("udp", in.LocalAddr().String()); err != nil {
				continue
			}
			_ = out.(*net.UDPConn).SetReadBuffer(1 << 20)
			mu.Lock()
			flows[from.String()] = out
			mu.Unlock()
			go func() {
				b := make([]byte, 65536)
				for {
					n, err := out.Read(b)
					if err != nil {
						return
					}
					if _, err := in.WriteTo(b[:n], from); err != nil {
						return
					}
				}
			}()
		}
		_, _ = out.Write(b[:n])
	}
}
