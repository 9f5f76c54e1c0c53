package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = "/org/freedesktop/resolve1"
	resolvedManager = resolvedName + ".Manager"
	resolvedLink    = resolvedName + ".Link"

	busTimeout  = 5 * time.Second // for one Set; resolved answers in milliseconds
	linkWait    = 2 * time.Second // until resolved has heard of a new link
	fewDomains  = 64              // when it says that the list is too long
	maxUpstream = 8
)

// resolved tells systemd-resolved about the link, and tells it again when it
// was restarted and has forgotten.
type resolved struct {
	opts Options
	log  *slog.Logger
	conn *dbus.Conn

	signals chan *dbus.Signal
	done    chan struct{}

	mu      sync.Mutex
	want    Config // zero: nothing is set
	ifindex int32
	closed  bool
}

var _ Manager = (*resolved)(nil)

func connectBus(ctx context.Context, opts Options) (*dbus.Conn, error) {
	var conn *dbus.Conn
	var err error
	if opts.BusAddress != "" {
		conn, err = dbus.Connect(opts.BusAddress)
	} else {
		conn, err = dbus.ConnectSystemBus()
	}
	if err != nil {
		return nil, fmt.Errorf("connect to system bus: %w", err)
	}
	return conn, nil
}

func newResolved(ctx context.Context, opts Options) (*resolved, error) {
	conn, err := connectBus(ctx, opts)
	if err != nil {
		return nil, err
	}
	r := &resolved{opts: opts, log: opts.Log, conn: conn, signals: make(chan *dbus.Signal, 8), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	// Ping starts a resolved that the bus starts on demand.
	err = conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0).Err
	if err == nil {
		err = conn.AddMatchSignalContext(ctx,
			dbus.WithMatchSender("org.freedesktop.DBus"),
			dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"),
			dbus.WithMatchArg(0, resolvedName))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("talk to systemd-resolved: %w", err)
	}
	conn.Signal(r.signals)
	go r.follow()
	return r, nil
}

func (r *resolved) Mode() string { return ModeResolved }

// follow waits for a new resolved. The channel ends with the connection.
func (r *resolved) follow() {
	defer close(r.done)
	for sig := range r.signals {
		var name, old, owner string
		if sig.Name != "org.freedesktop.DBus.NameOwnerChanged" || dbus.Store(sig.Body, &name, &old, &owner) != nil ||
			name != resolvedName || owner == "" {
			continue
		}
		r.mu.Lock()
		if !r.closed && !r.want.IsZero() {
			r.log.Info("systemd-resolved came back, telling it again")
			ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
			if err := r.applyLocked(ctx); err != nil {
				r.log.Warn("dns of the link not set", "err", err)
				r.opts.Warn("systemd-resolved was restarted and does not take our settings; cluster names may not resolve")
			}
			cancel()
		}
		r.mu.Unlock()
	}
}

func (r *resolved) Set(ctx context.Context, want Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("set dns: %w", net.ErrClosed)
	}
	if want.IsZero() {
		return r.revertLocked(ctx)
	}
	if len(want.Servers) == 0 {
		return fmt.Errorf("set dns: %w", errNoServers)
	}
	link, err := net.InterfaceByName(want.Link)
	if err != nil {
		return fmt.Errorf("set dns of link %q: %w", want.Link, err)
	}
	if want.Equal(r.want) && int32(link.Index) == r.ifindex {
		return nil
	}
	if !r.want.IsZero() && int32(link.Index) != r.ifindex {
		if err := r.revertLocked(ctx); err != nil {
			return err
		}
	}
	if err := writeJournal(r.opts.JournalDir, &journal{Mode: ModeResolved, Link: want.Link}); err != nil {
		return err
	}
	r.want, r.ifindex = want.clone(), int32(link.Index)
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := r.applyLocked(ctx); err != nil {
		return errors.Join(err, r.revertLocked(context.WithoutCancel(ctx)))
	}
	return nil
}

func (r *resolved) applyLocked(ctx context.Context) error {
	return applyResolved(ctx, r.conn, planResolved(r.ifindex, r.want), r.opts.Warn)
}

func (r *resolved) revertLocked(ctx context.Context) error {
	if r.want.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := revertLink(ctx, r.conn, r.ifindex); err != nil {
		return err
	}
	r.want, r.ifindex = Config{}, 0
	return removeJournal(r.opts.JournalDir)
}

func (r *resolved) Close() error {
	r.mu.Lock()
	var err error
	if !r.closed {
		r.closed = true
		err = r.revertLocked(context.Background())
		r.conn.Close()
	}
	r.mu.Unlock()
	<-r.done
	return err
}

// applyResolved makes the calls in their order.
func applyResolved(ctx context.Context, conn *dbus.Conn, plan []call, warn func(string)) error {
	for _, c := range plan {
		err := callResolved(ctx, conn, c)
		if domains, ok := domainsOf(c); ok && tooLong(err) {
			warn("systemd-resolved takes no more domains; short names of some namespaces may not resolve")
			c.args = []any{c.args[0], fewerDomains(domains, fewDomains)}
			err = callResolved(ctx, conn, c)
		}
		if err != nil && !(c.optional && unknownMethod(err)) {
			return fmt.Errorf("tell systemd-resolved %s: %w", c.method, err)
		}
	}
	return nil
}

func domainsOf(c call) ([]resolvedDomain, bool) {
	if len(c.args) < 2 {
		return nil, false
	}
	d, ok := c.args[1].([]resolvedDomain)
	return d, ok
}

// callResolved waits for a link that is so new that resolved has not heard of
// it from the kernel yet.
func callResolved(ctx context.Context, conn *dbus.Conn, c call) error {
	give := time.Now().Add(linkWait)
	for {
		err := conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedManager+"."+c.method, 0, c.args...).Err
		if !hasName(err, resolvedName+".NoSuchLink") || c.method == "RevertLink" || time.Now().After(give) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// revertLink undoes our settings. A link that has gone took them with it.
func revertLink(ctx context.Context, conn *dbus.Conn, ifindex int32) error {
	err := applyResolved(ctx, conn, planResolved(ifindex, Config{}), func(string) {})
	if hasName(err, resolvedName+".NoSuchLink") || hasName(err, "org.freedesktop.DBus.Error.ServiceUnknown") ||
		hasName(err, "org.freedesktop.DBus.Error.NameHasNoOwner") || errors.Is(err, dbus.ErrClosed) {
		return nil // without the link, or without resolved, nothing is left
	}
	return err
}

// revertResolved is the cleanup after a kill. It does not start a resolved
// that does not run: that one has no settings.
func revertResolved(ctx context.Context, opts Options, name string) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	conn, err := connectBus(ctx, opts)
	if err != nil {
		return nil // no bus, no resolved
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var running bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&running); err != nil || !running {
		return err
	}
	return revertLink(ctx, conn, int32(link.Index))
}

func hasName(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

func unknownMethod(err error) bool {
	return hasName(err, "org.freedesktop.DBus.Error.UnknownMethod")
}

func tooLong(err error) bool {
	if hasName(err, "org.freedesktop.DBus.Error.LimitsExceeded") || hasName(err, "System.Error.E2BIG") {
		return true
	}
	return err != nil && strings.Contains(err.Error(), "too long")
}

// Base asks resolved for the servers of all links but ours. Links that take
// only certain domains (another VPN) are left out: they do not answer for the
// rest of the world.
func (r *resolved) Base() []netip.AddrPort {
	r.mu.Lock()
	own, ifindex := r.want.Servers, r.ifindex
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	out := r.servers(ctx, "DNS", ifindex, own)
	if len(out) == 0 {
		out = r.servers(ctx, "FallbackDNS", ifindex, own)
	}
	return out
}

func (r *resolved) servers(ctx context.Context, property string, ifindex int32, own []netip.Addr) []netip.AddrPort {
	type server struct {
		Ifindex int32
		Family  int32
		Address []byte
	}
	var servers []server
	if err := r.property(ctx, resolvedPath, resolvedManager, property, &servers); err != nil {
		r.log.Warn("base resolvers not known", "err", err)
		return nil
	}
	var out []netip.AddrPort
	everything := map[int32]bool{0: true} // links that take all names
	for _, s := range servers {
		a, ok := netip.AddrFromSlice(s.Address)
		if !ok || s.Ifindex == ifindex && ifindex != 0 || slices.Contains(own, a) || slices.Contains(stubs, a) {
			continue
		}
		all, known := everything[s.Ifindex]
		if !known {
			all = r.takesAll(ctx, s.Ifindex)
			everything[s.Ifindex] = all
		}
		if a.IsLinkLocalUnicast() && a.Is6() {
			a = a.WithZone(strconv.Itoa(int(s.Ifindex)))
		}
		if ap := netip.AddrPortFrom(a, 53); all && !slices.Contains(out, ap) && len(out) < maxUpstream {
			out = append(out, ap)
		}
	}
	return out
}

// takesAll is true when in doubt: an old resolved has no such property.
func (r *resolved) takesAll(ctx context.Context, ifindex int32) bool {
	var path dbus.ObjectPath
	err := r.conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedManager+".GetLink", 0, ifindex).Store(&path)
	all := true
	if err == nil {
		if r.property(ctx, path, resolvedLink, "DefaultRoute", &all) != nil {
			return true
		}
	}
	return all
}

func (r *resolved) property(ctx context.Context, path dbus.ObjectPath, iface, name string, into any) error {
	var v dbus.Variant
	err := r.conn.Object(resolvedName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v)
	if err != nil {
		return fmt.Errorf("ask systemd-resolved for %s: %w", name, err)
	}
	return dbus.Store([]any{v.Value()}, into)
}
