package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SOCKS5 (RFC 1928), as far as it is served: CONNECT without a password.
const (
	socksVersion   = 5
	socksNoAuth    = 0
	socksNoMethod  = 0xff
	socksConnect   = 1
	socksIPv4      = 1
	socksName      = 3
	socksIPv6      = 4
	socksSucceeded = 0
)

// What a reply says of a request that failed.
const (
	socksFailed      = 1
	socksNetwork     = 3 // unreachable
	socksHost        = 4 // unreachable, or its name does not exist
	socksRefused     = 5
	socksTimeout     = 6 // "TTL expired": nobody answered
	socksNoCommand   = 7
	socksNoAddresses = 8
)

// socksError is a request that is answered by a reply of that code.
type socksError byte

func (e socksError) Error() string {
	return fmt.Sprintf("SOCKS request refused with reply %d", byte(e))
}

// socks serves one connection and closes it.
func (s *Server) socks(ctx context.Context, conn *peeked) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(talkTime))
	address, err := readSocks(conn.r, conn)
	var refused socksError
	switch {
	case errors.As(err, &refused):
		_, _ = conn.Write(socksReply(byte(refused)))
		return
	case err != nil:
		s.Log.Debug("a SOCKS program was not understood", "err", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	s.join(ctx, conn, "socks", address, func(err error) error {
		_, failed := conn.Write(socksReply(replyFor(err)))
		return failed
	})
}

// readSocks reads the greeting and the request, answers the greeting to w, and returns
// the address that is asked for. A socksError is to be answered.
func readSocks(r io.Reader, w io.Writer) (address string, err error) {
	var b [256]byte
	read := func(n int) []byte {
		if err == nil {
			_, err = io.ReadFull(r, b[:n])
		}
		return b[:n]
	}
	methods := int(read(2)[1]) // version and how many there are
	if offered := read(methods); err != nil {
		return "", err
	} else if !slices.Contains(offered, socksNoAuth) {
		_, _ = w.Write([]byte{socksVersion, socksNoMethod})
		return "", errors.New("it wants a password")
	}
	if _, err := w.Write([]byte{socksVersion, socksNoAuth}); err != nil {
		return "", err
	}
	request := read(4)
	version, command, kind := request[0], request[1], request[3]
	var host string
	switch kind {
	case socksIPv4, socksIPv6:
		a, _ := netip.AddrFromSlice(read(map[byte]int{socksIPv4: 4, socksIPv6: 16}[kind]))
		host = a.Unmap().String()
	case socksName:
		host = string(read(int(read(1)[0])))
	}
	port := binary.BigEndian.Uint16(read(2))
	switch {
	case err != nil:
		return "", err
	case version != socksVersion:
		return "", fmt.Errorf("version %d in the request", version)
	case command != socksConnect:
		return "", socksError(socksNoCommand)
	case host == "", strings.ContainsAny(host, "[]"): // no name of anything, and no address is written so
		return "", socksError(socksNoAddresses)
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

// socksReply is the answer to a request. Where we connected from is nobody's business:
// it is 0.0.0.0:0.
func socksReply(code byte) []byte {
	return []byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0}
}

// replyFor tells why dialling failed.
func replyFor(err error) byte {
	var dns *net.DNSError
	switch {
	case err == nil:
		return socksSucceeded
	case errors.Is(err, syscall.ECONNREFUSED):
		return socksRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return socksNetwork
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &dns) && dns.IsNotFound:
		return socksHost
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return socksTimeout
	}
	return socksFailed
}
