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

// resolved tells systemd-resolved about the links, and tells it again when it
// was restarted and has forgotten.
type resolved struct {
	opts Options
	log  *slog.Logger
	conn *dbus.Conn

	signals chan *dbus.Signal
	done    chan struct{}

	mu     sync.Mutex
	links  []linked // what is set, in the order of the wish
	closed bool
}

// linked is a link that resolved was told about.
type linked struct {
	want    Config
	ifindex int32
}

func (l linked) equal(o linked) bool { return l.ifindex == o.ifindex && l.want.Equal(o.want) }

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
		if !r.closed && len(r.links) > 0 {
			r.log.Info("systemd-resolved came back, telling it again")
			ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
			var err error
			for _, l := range r.links {
				err = errors.Join(err, r.apply(ctx, l))
			}
			if err != nil {
				r.log.Warn("dns of the link not set", "err", err)
				r.opts.Warn("systemd-resolved was restarted and does not take our settings; cluster names may not resolve")
			}
			cancel()
		}
		r.mu.Unlock()
	}
}

func (r *resolved) Set(ctx context.Context, want []Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := check(r.closed, want); err != nil {
		return err
	}
	return r.setLocked(ctx, want)
}

func (r *resolved) setLocked(ctx context.Context, want []Config) error {
	var next []linked
	for _, c := range want {
		link, err := net.InterfaceByName(c.Link)
		switch {
		case err == nil:
			next = append(next, linked{c.clone(), int32(link.Index)})
		case !slices.ContainsFunc(r.links, func(l linked) bool { return l.want.Link == c.Link }):
			return fmt.Errorf("set dns of link %q: %w", c.Link, err)
		} // else it was there and is gone, which is no matter of the others
	}
	if slices.EqualFunc(next, r.links, linked.equal) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	// Until all is done the journal has the links of before and of afterwards.
	if err := r.noteLocked(slices.Concat(r.links, next)); err != nil {
		return err
	}
	was := r.links
	r.links = nil
	var failed error
	for _, l := range next {
		if !slices.ContainsFunc(was, l.equal) {
			if err := r.apply(ctx, l); err != nil {
				failed = errors.Join(failed, err, revertLink(context.WithoutCancel(ctx), r.conn, l.ifindex))
				continue
			}
		}
		r.links = append(r.links, l)
	}
	// What goes goes last, so that no name is nobody's in between.
	for _, l := range was {
		if slices.ContainsFunc(next, func(o linked) bool { return o.ifindex == l.ifindex }) {
			continue
		}
		if err := revertLink(ctx, r.conn, l.ifindex); err != nil {
			failed = errors.Join(failed, err)
			r.links = append(r.links, l) // there is something left to undo
		}
	}
	return errors.Join(failed, r.noteLocked(r.links))
}

func (r *resolved) apply(ctx context.Context, l linked) error {
	return applyResolved(ctx, r.conn, planResolved(l.ifindex, l.want), r.opts.Warn)
}

// noteLocked makes the journal tell of these links.
func (r *resolved) noteLocked(links []linked) error {
	if len(links) == 0 {
		return removeJournal(r.opts.JournalDir)
	}
	j := &journal{Mode: ModeResolved}
	for _, l := range links {
		if !slices.Contains(j.Links, l.want.Link) {
			j.Links = append(j.Links, l.want.Link)
		}
	}
	return writeJournal(r.opts.JournalDir, j)
}

func (r *resolved) Close() error {
	r.mu.Lock()
	var err error
	if !r.closed {
		r.closed = true
		err = r.setLocked(context.Background(), nil)
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
func revertResolved(ctx context.Context, opts Options, names []string) error {
	var there []int32
	for _, name := range names {
		if link, err := net.InterfaceByName(name); err == nil {
			there = append(there, int32(link.Index))
		}
	}
	if len(there) == 0 {
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
	var failed error
	for _, ifindex := range there {
		failed = errors.Join(failed, revertLink(ctx, conn, ifindex))
	}
	return failed
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
	own := slices.Clone(r.links)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	out := r.servers(ctx, "DNS", own)
	if len(out) == 0 {
		out = r.servers(ctx, "FallbackDNS", own)
	}
	return out
}

func (r *resolved) servers(ctx context.Context, property string, own []linked) []netip.AddrPort {
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
		ours := slices.ContainsFunc(own, func(l linked) bool { return s.Ifindex == l.ifindex || slices.Contains(l.want.Servers, a) })
		if !ok || ours || slices.Contains(stubs, a) {
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
