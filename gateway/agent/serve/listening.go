package serve

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// portSet is a set of TCP ports; nil has all of them.
type portSet map[uint16]bool

func (s portSet) has(port uint16) bool { return s == nil || s[port] }

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
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue // a kernel without IPv6 has no tcp6
		}
		err = ports.read(f)
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
func (s portSet) read(r io.Reader) error {
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
		_, hex, _ := strings.Cut(f[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return err
		}
		s[uint16(port)] = true
	}
	return lines.Err()
}
