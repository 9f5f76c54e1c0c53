package cluster

import "net"

// Redial closes the connections to the API server, so that the next call makes
// a new one. HTTP keeps a connection for as long as nobody says that it is
// dead, and after a change of networks nobody does: calls would time out on it
// one after the other for most of a minute. Calls under way fail. Streams of
// DialPod have connections of their own and stay.
func (c *Client) Redial() {
	c.mu.Lock()
	all := c.conns
	c.conns = nil
	c.mu.Unlock()
	for conn := range all {
		_ = conn.Conn.Close()
	}
}

// tracked is a connection that Redial knows of.
type tracked struct {
	net.Conn
	c *Client
}

// trackLocked adds a new connection.
func (c *Client) trackLocked(conn net.Conn) net.Conn {
	t := &tracked{conn, c}
	if c.conns == nil {
		c.conns = map[*tracked]struct{}{}
	}
	c.conns[t] = struct{}{}
	return t
}

func (t *tracked) Close() error {
	t.c.mu.Lock()
	delete(t.c.conns, t)
	t.c.mu.Unlock()
	return t.Conn.Close()
}
