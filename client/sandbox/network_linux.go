package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"podnet.dev/internal/netstack"
)

// openTUN makes a TUN device, as wireguard-go's CreateTUN does.
func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	return fd, nil
}

// MayTUN says whether this process may change its own network, by making a device there
// that is gone at once: a capability alone may be one for another network.
func MayTUN() bool {
	fd, err := openTUN("podnet-try%d")
	return err == nil && unix.Close(fd) == nil
}

// outsideMTU is what the forwarder's stack hands out at once.
const outsideMTU = netstack.TunnelMTU

// wireUp makes loopback and the way outside. The tunnel is the session's.
func wireUp(b beginning) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	link, err := netlink.LinkByName(outsideName)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, outsideMTU); err != nil {
		return fmt.Errorf("%s mtu: %w", outsideName, err)
	}
	if err := addAddress(link, Own); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s up: %w", outsideName, err)
	}
	routes := []netip.Prefix{netip.PrefixFrom(DNS, 32)}
	if !b.Isolate {
		routes = append(routes, netip.PrefixFrom(Host, 32), netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		if b.Six {
			// Without IPv6 outside nobody is to try it first; a kernel without it has none.
			if addAddress(link, own6) == nil {
				routes = append(routes, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
			}
		}
	}
	for _, p := range routes {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s: %w", p, err)
		}
	}
	return nil
}

func addAddress(link netlink.Link, a netip.Addr) error {
	add := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		add.Flags = unix.IFA_F_NODAD // nobody else is on this link
	}
	if err := netlink.AddrAdd(link, add); err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	return nil
}

// likeInAPod lets programs ping and listen on any port, as container runtimes let
// them: they have no capability for either. Where /proc/sys is read-only they cannot.
func likeInAPod() {
	group := strconv.Itoa(os.Getegid())
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(group+" "+group), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
}
