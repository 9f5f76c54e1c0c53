package doctor

import (
	"bufio"
	"bytes"
	"os"
	"strings"
)

// portTaken says whether a socket of this machine has port 53 of every address.
func portTaken() (bool, error) {
	for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
		raw, err := os.ReadFile("/proc/net/" + name)
		if os.IsNotExist(err) {
			continue // IPv6 is off
		}
		if err != nil {
			return false, err
		}
		if wildcard53(raw) {
			return true, nil
		}
	}
	return false, nil
}

// wildcard53 looks in a table of /proc/net for a socket on the unspecified
// address and port 53 that listens (TCP) or is not connected (UDP): both have
// the unspecified remote address. The kernel prints addresses and ports in
// hexadecimal (man 5 proc).
func wildcard53(table []byte) bool {
	for s := bufio.NewScanner(bytes.NewReader(table)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 3 {
			continue
		}
		addr, isAt53 := strings.CutSuffix(fields[1], ":0035")
		if isAt53 && addr != "" && strings.Trim(addr, "0") == "" && strings.Trim(fields[2], "0:") == "" {
			return true
		}
	}
	return false
}
