package helper

import "net"

// Sockets are those that a ListenDNS opens, for UDP and for TCP.
type Sockets struct {
	Packets []net.PacketConn
	Streams []net.Listener
}

// Close closes those that are open, where not all can be.
func (s *Sockets) Close() {
	for _, p := range s.Packets {
		_ = p.Close()
	}
	for _, l := range s.Streams {
		_ = l.Close()
	}
}
