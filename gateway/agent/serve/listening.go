package serve

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// families are those of IP in which somebody listens to a port.
type families uint8

const (
	inet4 families = 1 << iota
	inet6
	inetBoth = inet4 | inet6
)

// portSet is by TCP ports where somebody listens to them; nil: to all of them.
type portSet map[uint16]families

func (s portSet) of(port uint16) families {
	if s == nil {
		return inetBoth
	}
	return s[port]
}

// listeningPorts returns the TCP ports of this network namespace to which somebody
// listens, and all ports when that cannot be known. A listener of ours would answer
// for a program that is not there: connections are complete before anybody sees
// them.
func listeningPorts() portSet {
	ports := portSet{}
	if ports.ask() == nil {
		return ports
	}
	known := false
	for name, in := range map[string]families{"/proc/self/net/tcp": inet4, "/proc/self/net/tcp6": inet6} {
		f, err := os.Open(name)
		if err != nil {
			continue // a kernel without IPv6 has no tcp6
		}
		err = ports.read(f, in)
		f.Close()
		if err != nil {
			return nil
		}
		known = true
	}
	if !known {
		return nil
	}
	return ports
}

// read adds the ports of a file of proc(5), which lists listeners before all others.
func (s portSet) read(r io.Reader, in families) error {
	const (
		local, state = 1, 3 // columns
		listen       = "0A" // TCP_LISTEN
	)
	lines := bufio.NewScanner(r)
	lines.Scan() // the head
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= state || f[state] != listen {
			break
		}
		address, hex, _ := strings.Cut(f[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return err
		}
		s[uint16(port)] |= in
		if in == inet6 && strings.Trim(address, "0") == "" {
			s[uint16(port)] |= inet4 // unless it has IPV6_V6ONLY, which is not said here
		}
	}
	return lines.Err()
}
