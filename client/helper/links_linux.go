package helper

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"podnet.dev/client/router"
)

// removeLink removes a TUN or WireGuard interface of ours that is still there. index
// is what it has to have; 0: any. Another kind of interface that has taken the name
// since stays.
func removeLink(name string, index int) error {
	if !router.Ours(name) {
		return nil
	}
	link, err := netlink.LinkByName(name)
	var gone netlink.LinkNotFoundError
	switch {
	case errors.As(err, &gone):
		return nil
	case err != nil:
		return fmt.Errorf("find interface %s: %w", name, err)
	case link.Type() != "tuntap" && link.Type() != "wireguard", index != 0 && link.Attrs().Index != index:
		return nil
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}
