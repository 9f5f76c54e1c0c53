//go:build !unix

package splice

import "net"

// ReadDatagram waits for a datagram and hands it to f, which must not keep it.
func ReadDatagram(conn *net.UDPConn, f func([]byte)) error {
	b := make([]byte, 64<<10)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	f(b[:n])
	return nil
}
