package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetUp makes a usable machine of one that has just booted: its first process calls
// it.
func SetUp() error {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	files, err := filepath.Glob(modulesDir + "/*")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		if err := load(f); err != nil {
			return fmt.Errorf("load module %s: %w", f, err)
		}
	}
	for name, text := range map[string]string{
		"/etc/resolv.conf": "nameserver " + Resolver.String() + "\n", "/etc/hosts": "127.0.0.1 localhost\n", "/etc/nsswitch.conf": "hosts: files dns\n",
	} {
		if err := errors.Join(os.MkdirAll("/etc", 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return connect()
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// linkTime is how long the network card may take to appear.
const linkTime = 5 * time.Second

// connect gives the one network card its address.
func connect() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(links, func(l netlink.Link) bool {
			return l.Type() == "device" && l.Attrs().Flags&net.FlagLoopback == 0
		})
		if i < 0 && time.Since(begun) < linkTime {
			continue
		}
		if i < 0 {
			return errors.New("there is no network card")
		}
		own := &netlink.Addr{IPNet: &net.IPNet{IP: Address.Addr().AsSlice(), Mask: net.CIDRMask(Address.Bits(), 32)}}
		if err := errors.Join(netlink.AddrAdd(links[i], own), netlink.LinkSetUp(links[i])); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: links[i].Attrs().Index, Gw: Gateway.AsSlice()})
	}
}

// PowerOff ends the machine: QEMU boots it once only.
func PowerOff() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
