// Package testport has ports of this machine for tests.
package testport

import "net"

// Both listens at an address by UDP and TCP; port 0 is one that is free for both.
func Both(addr string) (packets net.PacketConn, l net.Listener, err error) {
	for range 20 {
		if l, err = net.Listen("tcp", addr); err != nil {
			continue
		}
		if packets, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			return packets, l, nil
		}
		_ = l.Close() // another program's, for UDP
	}
	return nil, nil, err
}
