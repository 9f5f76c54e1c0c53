package deploy

import (
	"errors"
	"fmt"
	"net/netip"
)

// noRanges hold nothing that could be a cluster's.
var noRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback
	netip.MustParsePrefix("169.254.0.0/16"), // link-local
	netip.MustParsePrefix("224.0.0.0/3"),    // multicast and reserved
	netip.MustParsePrefix("::/8"),           // unspecified, loopback, IPv4-mapped, NAT64
	netip.MustParsePrefix("fe80::/10"),      // link-local
	netip.MustParsePrefix("ff00::/8"),       // multicast
}

// CheckRange tells why no laptop should be asked to route a range, if so.
func CheckRange(p netip.Prefix) error {
	least := 8
	if p.Addr().Is6() {
		least = 32
	}
	if p.Bits() < least {
		return fmt.Errorf("broader than /%d", least)
	}
	for _, no := range noRanges {
		if p.Overlaps(no) {
			return errors.New("loopback, link-local, multicast or reserved")
		}
	}
	return nil
}

// ParseRange reads a range that passes CheckRange.
func ParseRange(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q: want a range such as 10.0.0.0/16", text)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q: did you mean %s?", text, p.Masked())
	}
	if err := CheckRange(p); err != nil {
		return p, fmt.Errorf("%q: %w", text, err)
	}
	return p, nil
}
