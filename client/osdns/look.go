package osdns

import (
	"net/netip"
	"os"
)

// Looks is what can be told of a host's resolver without changing anything.
type Looks struct {
	// Mode is one of the modes.
	Mode string
	// Ours says that resolv.conf is as podnet writes it: while nothing is
	// connected, what a killed podnet has left.
	Ours bool
}

// Look looks at the resolver of this host, or of one whose files opts names.
func Look(opts Options) Looks {
	opts = opts.withDefaults()
	conf, _ := os.ReadFile(opts.ResolvConf)
	nsswitch, _ := os.ReadFile(opts.NSSwitch)
	l := Looks{Mode: ModeDirect, Ours: isOurs(conf)}
	switch {
	case wiredToResolved(conf, nsswitch):
		l.Mode = ModeResolved
	case usesOpenresolv(opts, conf):
		l.Mode = ModeOpenresolv
	}
	return l
}

// Resolvers are those that resolv.conf names, on this host or one whose files opts
// names.
func Resolvers(opts Options) []netip.AddrPort {
	conf, _ := os.ReadFile(opts.withDefaults().ResolvConf)
	return baseServers(conf, nil)
}
