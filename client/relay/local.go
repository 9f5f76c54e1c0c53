package relay

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// dialTime is how long a local program may take to accept. Agents wait 3 s for
// the whole way.
const dialTime = 2500 * time.Millisecond

// targets are the addresses of a Rule's Local, to be tried in order.
func targets(local string) []string {
	if strings.Contains(local, ":") {
		return []string{local}
	}
	return []string{net.JoinHostPort("127.0.0.1", local), net.JoinHostPort("::1", local)}
}

// dialTCP connects to a Rule's Local. Of several errors the first is returned.
func dialTCP(ctx context.Context, local string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	var first error
	for _, at := range targets(local) {
		c, err := d.DialContext(ctx, "tcp", at)
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		if first == nil {
			first = &localError{at, err}
		}
	}
	return nil, first
}

// localError says where nobody answered, and why, to a person.
type localError struct {
	at  string
	err error
}

func (e *localError) Error() string {
	var dns *net.DNSError
	switch {
	case errors.Is(e.err, syscall.ECONNREFUSED):
		return "connection refused at " + e.at
	case errors.As(e.err, &dns) && dns.IsNotFound:
		return "no such host: " + dns.Name
	case errors.Is(e.err, os.ErrDeadlineExceeded), errors.Is(e.err, context.DeadlineExceeded):
		return "no answer at " + e.at
	}
	return e.err.Error()
}

func (e *localError) Unwrap() error { return e.err }
