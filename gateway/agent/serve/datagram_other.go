//go:build !unix

package serve

import "net"

// readDatagram waits for a datagram and hands it to f, which must not keep it.
func readDatagram(conn *net.UDPConn, f func([]byte)) error {
	b := make([]byte, maxDatagram)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	f(b[:n])
	return nil
}
