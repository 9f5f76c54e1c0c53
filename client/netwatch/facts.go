package netwatch

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ours is how the names of podnet's own interfaces begin.
const ours = "podnet"

// facts are what makes a network this one and not another, one sentence each,
// sorted: "wlan0 192.0.2.7/24", "default via 192.0.2.1 dev wlan0".
type facts []string

// port is one interface of the host.
type port struct {
	name string
	// carries says that the interface is up and has a carrier.
	carries  bool
	loopback bool
	prefixes []netip.Prefix
}

// way is a default route.
type way struct {
	via    netip.Addr // invalid: none, as for a point-to-point link
	dev    string
	metric int
}

func (w way) String() string {
	text := "default"
	if w.via.IsValid() {
		text += " via " + w.via.String()
	}
	text += " dev " + w.dev
	if w.metric != 0 {
		text += fmt.Sprintf(" metric %d", w.metric)
	}
	return text
}

// describe leaves out what does not matter to anybody who wants to reach the
// outside: loopback, links without an address, such as containers have by the
// dozen, and our own interfaces.
func describe(ports []port, ways []way) facts {
	var f facts
	for _, p := range ports {
		if p.loopback || !p.carries || strings.HasPrefix(p.name, ours) {
			continue
		}
		for _, a := range p.prefixes {
			if !a.Addr().IsLinkLocalUnicast() {
				f = append(f, p.name+" "+a.String())
			}
		}
	}
	for _, w := range ways {
		if !strings.HasPrefix(w.dev, ours) {
			f = append(f, w.String())
		}
	}
	slices.Sort(f)
	return slices.Compact(f)
}

// diffMax is how many facts a text names on each side.
const diffMax = 4

// diff says what is new and what is gone, "" when nothing is.
func diff(before, now facts) string {
	var parts []string
	for _, side := range []struct {
		what      string
		has, have facts
	}{{"new", now, before}, {"gone", before, now}} {
		var names []string
		for _, f := range side.has {
			if _, known := slices.BinarySearch(side.have, f); !known {
				names = append(names, f)
			}
		}
		if n := len(names) - diffMax; n > 0 {
			names = append(names[:diffMax], fmt.Sprintf("%d more", n))
		}
		if len(names) > 0 {
			parts = append(parts, side.what+": "+strings.Join(names, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// look reads the host's facts.
func look() (facts, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var ports []port
	for _, i := range all {
		p := port{name: i.Name, loopback: i.Flags&net.FlagLoopback != 0, carries: i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0}
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone while we looked
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				p.prefixes = append(p.prefixes, prefix)
			}
		}
		ports = append(ports, p)
	}
	ways, err := defaultRoutes()
	return describe(ports, ways), err
}
