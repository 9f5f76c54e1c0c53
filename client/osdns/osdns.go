// Package osdns points the operating system's resolver at podnet's DNS proxy
// and puts everything back afterwards, also when podnet was killed in between.
// What to change is decided by pure functions that are tested everywhere; thin
// apply files do it. It knows nothing of Kubernetes, of DNS messages or of who
// answers at the addresses it is given.
package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
)

// Config is what one link is to be asked for.
type Config struct {
	// Link is the interface that owns Servers. Resolvers with a setting per
	// link hang the wish on it, so that it goes when the link does.
	Link string
	// Servers answer on port 53: resolv.conf has no way to say another one.
	Servers []netip.Addr
	// MatchDomains go to Servers, with everything below them, where the OS
	// can tell domains apart. Where it cannot, all names go there.
	MatchDomains []string
	// SearchDomains are tried, in order, behind names of one label. They come
	// before the ones that the host has already.
	SearchDomains []string
	// Primary says that of several this one is to be the first.
	Primary bool
}

// IsZero says whether c wishes for nothing.
func (c Config) IsZero() bool {
	return c.Link == "" && len(c.Servers) == 0 && len(c.MatchDomains) == 0 && len(c.SearchDomains) == 0
}

// Equal says whether c and d wish for the same.
func (c Config) Equal(d Config) bool {
	return c.Link == d.Link && c.Primary == d.Primary && slices.Equal(c.Servers, d.Servers) &&
		slices.Equal(c.MatchDomains, d.MatchDomains) && slices.Equal(c.SearchDomains, d.SearchDomains)
}

func (c Config) clone() Config {
	c.Servers = slices.Clone(c.Servers)
	c.MatchDomains = slices.Clone(c.MatchDomains)
	c.SearchDomains = slices.Clone(c.SearchDomains)
	return c
}

// The modes: who the host's resolver is.
const (
	ModeResolved    = "resolved"    // systemd-resolved, over D-Bus
	ModeOpenresolv  = "openresolv"  // /etc/resolv.conf, written by openresolv
	ModeDirect      = "direct"      // /etc/resolv.conf, read by every program itself
	ModeResolverDir = "resolverdir" // macOS' folder /etc/resolver
	ModeNRPT        = "nrpt"        // Windows' Name Resolution Policy Table
)

// Manager makes the host's resolver match a list of Configs, each of another
// link.
type Manager interface {
	// Set makes the host match want, all of it. Where the OS cannot tell domains
	// apart only the first is asked, for everything: whoever answers there has
	// to know the names of the others, too. Calling it twice with the same want
	// does nothing the second time. An empty want removes everything that this
	// Manager added. With an error the links that it is about may have lost what
	// they had; the others have not.
	Set(ctx context.Context, want []Config) error
	// Base are the resolvers that the host would use without podnet, never
	// podnet's own. They may change while the host moves between networks.
	Base() []netip.AddrPort
	// Mode is one of the modes.
	Mode() string
	// Close is Set with nothing, and gives back what the Manager
	// holds. It is idempotent and waits.
	Close() error
}

// Options say where things are. JournalDir is required; the rest has defaults.
type Options struct {
	Log *slog.Logger
	// JournalDir is where every change is noted before it is made. It must
	// outlive a reboot: /etc/resolv.conf does.
	JournalDir string
	// Warn is called, from any goroutine, with something that the user should
	// know: a resolver configuration that another program keeps overwriting.
	Warn func(message string)

	// ResolvConf is "/etc/resolv.conf" unless set.
	ResolvConf string
	// NSSwitch is "/etc/nsswitch.conf" unless set.
	NSSwitch string
	// Resolvconf is "resolvconf", the program, unless set.
	Resolvconf string
	// BusAddress of the D-Bus system bus; empty means the usual one.
	BusAddress string
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.NSSwitch == "" {
		o.NSSwitch = "/etc/nsswitch.conf"
	}
	if o.Resolvconf == "" {
		o.Resolvconf = "resolvconf"
	}
	return o
}

var errNoServers = errors.New("no dns servers in the wish")

// check finds what is wrong with a wish, whoever is to carry it out: he may be
// closed, which callers know by net.ErrClosed.
func check(closed bool, want []Config) error {
	if closed {
		return fmt.Errorf("set dns: %w", net.ErrClosed)
	}
	for _, c := range want {
		if len(c.Servers) == 0 {
			return fmt.Errorf("set dns: %w", errNoServers)
		}
	}
	return nil
}

// serversOf are all addresses of ours in a wish.
func serversOf(want []Config) []netip.Addr {
	var all []netip.Addr
	for _, c := range want {
		all = append(all, c.Servers...)
	}
	return all
}

// outside are the resolvers at these servers, each once, and none of our own.
func outside(servers, own []netip.Addr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range servers {
		if ap := netip.AddrPortFrom(a, 53); !slices.Contains(own, a) && !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out
}

// removalsLast compares two changes by whether they remove: at no time is a name
// without its rule or file that is to have one.
func removalsLast(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// New finds out who resolves names on this host, undoes what an earlier
// podnet left behind, and returns the Manager for it. It changes nothing else
// before the first Set.
func New(ctx context.Context, opts Options) (Manager, error) {
	return newManager(ctx, opts.withDefaults())
}

// Cleanup undoes what a killed podnet left behind, by the journal in
// journalDir. It is idempotent, and fine where nothing was left.
func Cleanup(ctx context.Context, journalDir string) error {
	return CleanupWith(ctx, Options{JournalDir: journalDir})
}

// CleanupWith is Cleanup for a host whose files or bus are elsewhere.
func CleanupWith(ctx context.Context, opts Options) error { return cleanup(ctx, opts.withDefaults()) }
