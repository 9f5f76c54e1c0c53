package client

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// askers are those whose questions the DNS proxy answers: this machine, and the
// containers and virtual machines on it. The tunnel's addresses are this
// machine's whichever link a packet comes in by, so that everybody on its LAN
// could ask otherwise.
type askers struct {
	mu     sync.Mutex
	own    []netip.Addr
	inside []netip.Prefix // networks that end in this machine
	looked time.Time
}

// askersEvery is how often at most a stranger makes us look again whether it is
// one.
const askersEvery = time.Second

func (a *askers) allow(client netip.Addr) bool {
	if client = client.WithZone(""); client.IsLoopback() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.knowsLocked(client) && time.Since(a.looked) >= askersEvery {
		a.own, a.inside, a.looked = lookForAskers()
		return a.knowsLocked(client)
	}
	return a.knowsLocked(client)
}

func (a *askers) knowsLocked(client netip.Addr) bool {
	return slices.Contains(a.own, client) ||
		slices.ContainsFunc(a.inside, func(p netip.Prefix) bool { return p.Contains(client) })
}

func lookForAskers() (own []netip.Addr, inside []netip.Prefix, at time.Time) {
	at = time.Now()
	links, err := net.Interfaces()
	if err != nil {
		return nil, nil, at
	}
	for _, l := range links {
		ends := endsHere("/sys/class/net", l.Name)
		addrs, _ := l.Addrs()
		for _, p := range prefixesOf(addrs) {
			own = append(own, p.Addr())
			if ends {
				inside = append(inside, p.Masked())
			}
		}
	}
	return own, inside, at
}

// endsHere says whether a link is a bridge without a port to the outside, such as
// docker0: a device of hardware has a folder "device" in sysfs. Elsewhere than on
// Linux there is none that does.
func endsHere(sysfs, link string) bool {
	if _, err := os.Stat(filepath.Join(sysfs, link, "bridge")); err != nil {
		return false
	}
	ports, err := os.ReadDir(filepath.Join(sysfs, link, "brif"))
	return err == nil && !slices.ContainsFunc(ports, func(p os.DirEntry) bool {
		_, err := os.Stat(filepath.Join(sysfs, p.Name(), "device"))
		return err == nil
	})
}
