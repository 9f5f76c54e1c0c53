package agent

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// routers are where the pod's default routes lead: an address that the node has
// towards its pods. Where pods are on a bridge of the node's, the kubelet probes them
// from that, and not from an address that the node is known by. What else comes from
// there, as what a NodePort has translated, is the same to the pod.
func routers() []netip.Addr {
	var all []netip.Addr
	for name, read := range map[string]func(io.Reader) []netip.Addr{"/proc/self/net/route": routers4, "/proc/self/net/ipv6_route": routers6} {
		f, err := os.Open(name)
		if err != nil {
			continue // a kernel without that family
		}
		all = append(all, read(f)...)
		f.Close()
	}
	return all
}

const routeToGateway = 2 // RTF_GATEWAY of linux/route.h

// routers4 reads route(5): interface, destination, gateway, flags, three numbers and
// the mask. An address is printed as a number of the machine's byte order.
func routers4(r io.Reader) (all []netip.Addr) {
	const zero = "00000000"
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != zero || f[7] != zero || !throughGateway(f[3]) {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 16, 32); err == nil {
			all = append(all, netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(n)))))
		}
	}
	return all
}

// routers6 reads the same of IPv6: destination, its length, source, its length,
// gateway, three numbers, flags and interface.
func routers6(r io.Reader) (all []netip.Addr) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[1] != "00" || f[3] != "00" || !throughGateway(f[8]) {
			continue
		}
		if b, err := hex.DecodeString(f[4]); err == nil && len(b) == 16 {
			all = append(all, netip.AddrFrom16([16]byte(b)))
		}
	}
	return all
}

func throughGateway(flags string) bool {
	n, err := strconv.ParseUint(flags, 16, 32)
	return err == nil && n&routeToGateway != 0
}
