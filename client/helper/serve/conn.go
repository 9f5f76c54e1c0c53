//go:build unix

package serve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/peercred"
)

// conn is one connection and its session:
//
//	hello --open--> session --tun--> with an interface --close, or its end--> nothing
//
// What it asks for is done one after another.
type conn struct {
	server   *Server
	wire     *wire.Conn
	who      peercred.Credentials
	operator bool
	log      *slog.Logger

	// open says that there is, or is about to be, a session; name is the interface's.
	// The server's mu guards both.
	open bool
	name string

	session helper.Session
	// own are the interface's addresses, had those that it has ever had.
	own, had []netip.Addr
}

// strangerTime is how long somebody without a session may stay: long enough to ask.
const strangerTime = 10 * time.Second

// maxHad bounds what is remembered of a session's addresses.
const maxHad = 256

func (c *conn) run(ctx context.Context) {
	defer c.wire.Close()
	defer c.leave()
	stranger := time.AfterFunc(strangerTime, func() { _ = c.wire.Close() })
	defer stranger.Stop()
	for {
		r, err := c.wire.ReadRequest()
		if err != nil {
			if c.session != nil || !errors.Is(err, io.EOF) {
				c.log.Info("connection ended", "err", err)
			}
			return
		}
		answer, files, err := c.answer(ctx, r)
		if err != nil {
			c.log.Warn("refused", "verb", r.Verb, "err", err)
			answer = wire.Answer{Error: trouble(err)}
		}
		conns := make([]syscall.Conn, len(files))
		for i, f := range files {
			conns[i] = f.conn
		}
		err = c.wire.WriteAnswer(answer, conns...)
		for _, f := range files {
			err = errors.Join(err, f.close())
		}
		if err != nil {
			c.log.Warn("answer not sent", "verb", r.Verb, "err", err)
			return
		}
		if c.session != nil {
			stranger.Stop()
		}
	}
}

// leave takes the session back.
func (c *conn) leave() error {
	if c.session == nil {
		return nil
	}
	err := c.session.Close()
	if err != nil {
		c.log.Error("session not wholly taken back", "err", err)
	} else {
		c.log.Info("session taken back", "interface", c.name)
	}
	c.session, c.own, c.had = nil, nil, nil
	c.server.end(c)
	return err
}

// given is a file that goes away with an answer; ours is closed then.
type given struct {
	conn  syscall.Conn
	close func() error
}

// needsOperator are all verbs but those that only ask.
func needsOperator(v wire.Verb) bool { return v != wire.Hello && v != wire.Status }

var errNoSession = errors.New("there is no session: open comes first")

// answer does what is asked for.
func (c *conn) answer(ctx context.Context, r wire.Request) (a wire.Answer, files []given, err error) {
	if needsOperator(r.Verb) && !c.operator {
		return a, nil, &helper.PrivilegeError{Err: errors.New("this user is no operator of podnet-helper")}
	}
	if err := r.Check(); err != nil {
		return a, nil, err
	}
	if needsOperator(r.Verb) && r.Verb != wire.Open && c.session == nil {
		return a, nil, errNoSession
	}
	switch r.Verb {
	case wire.Hello:
		a.Greeting = greeting(c)
	case wire.Status:
		a.Sessions = c.server.sessions()
	case wire.Open:
		err = c.begin(ctx)
	case wire.TUN:
		a.Interface, files, err = c.tun(r.MTU)
	case wire.WireGuard:
		a.Interface, files, err = c.wireGuard(r.MTU)
	case wire.SetWireGuard:
		err = c.setWireGuard(*r.Device)
	case wire.WireGuardState:
		a.Device, err = c.wireGuardState()
	case wire.SetNetwork:
		err = c.setNetwork(*r.Network)
	case wire.SetDNS:
		err = c.setDNS(ctx, r.DNS)
	case wire.ListenDNS:
		a.Packets, a.Streams, files, err = c.listenDNS(ctx, r.Addresses)
	case wire.Resolvers:
		a.Resolvers, a.Mode = c.session.DNS()
	case wire.ResetFlows:
		a.Count, err = c.resetFlows(ctx, r.Addresses)
	case wire.Close:
		err = c.leave()
	}
	return a, files, err
}

func (c *conn) begin(ctx context.Context) (err error) {
	if c.session != nil {
		return &wire.RefusedError{Why: "a second session on one connection"}
	}
	if err := c.server.begin(c); err != nil {
		return err
	}
	c.session, err = c.server.Open(ctx, func(text string) {
		if err := c.wire.WriteAnswer(wire.Answer{Warning: text}); err != nil {
			c.log.Warn("warning not sent", "err", err)
			_ = c.wire.Close() // half a message may be there; the session ends
		}
	})
	if err != nil {
		c.session = nil
		c.server.end(c)
		return err
	}
	c.log.Info("session opened")
	return nil
}

var errSecond = &wire.RefusedError{Why: "a second interface for one session"}

func (c *conn) tun(mtu int) (name string, files []given, err error) {
	if c.name != "" {
		return "", nil, errSecond
	}
	dev, err := c.session.TUN(mtu)
	if err != nil {
		return "", nil, err
	}
	if name, err = dev.Name(); err != nil {
		return "", nil, errors.Join(err, dev.Close())
	}
	c.made(name)
	return name, []given{{dev.File(), dev.Close}}, nil
}

func (c *conn) made(name string) {
	c.server.named(c, name)
	c.log.Info("interface made", "interface", name)
}

func (c *conn) setNetwork(n wire.Network) error {
	if c.name == "" {
		return &wire.RefusedError{Why: "a network without an interface"}
	}
	have, err := c.server.Networks()
	if err != nil {
		return err
	}
	var own []netip.Addr
	for _, p := range n.Addresses {
		for _, o := range have {
			if o.Prefix.Overlaps(p) {
				return &router.ConflictError{Prefix: p, Interface: o.Interface, Network: o.Prefix}
			}
		}
		own = append(own, p.Addr())
	}
	err = c.session.SetNetwork(router.Config{Interface: c.name, Addresses: n.Addresses, Routes: n.Routes, Shared: n.Shared, Avoid: n.Avoid, MTU: n.MTU})
	if err != nil {
		return err
	}
	c.own = own
	for _, a := range own {
		if !slices.Contains(c.had, a) {
			c.had = append(c.had, a)
		}
	}
	c.had = c.had[max(0, len(c.had)-maxHad):]
	c.log.Info("network set", "interface", c.name, "addresses", n.Addresses, "routes", brief(n.Routes))
	return nil
}

// brief is a list for one line of a log.
func brief[T any](all []T) any {
	const most = 16
	if len(all) > most {
		return struct {
			First []T
			Of    int
		}{all[:most], len(all)}
	}
	return all
}

func (c *conn) setDNS(ctx context.Context, d *wire.DNS) error {
	if d == nil {
		return c.session.SetDNS(ctx, osdns.Config{})
	}
	if err := c.areOwn(d.Servers, c.own); err != nil {
		return err
	}
	err := c.session.SetDNS(ctx, osdns.Config{Link: c.name, Servers: d.Servers, MatchDomains: d.MatchDomains, SearchDomains: d.SearchDomains, Primary: d.Primary})
	if err == nil {
		c.log.Info("names set", "interface", c.name, "domains", brief(d.MatchDomains), "search", d.SearchDomains)
	}
	return err
}

func (c *conn) areOwn(asked, own []netip.Addr) error {
	for _, a := range asked {
		if !slices.Contains(own, a) {
			return &wire.RefusedError{Why: "the address " + a.String() + ", which is not this session's"}
		}
	}
	return nil
}

func (c *conn) listenDNS(ctx context.Context, addrs []netip.Addr) (packets, streams int, files []given, err error) {
	if err := c.areOwn(addrs, c.own); err != nil {
		return 0, 0, nil, err
	}
	ps, ls, err := c.session.ListenDNS(ctx, addrs)
	if err != nil {
		return 0, 0, nil, err
	}
	keep := func(f interface{ Close() error }) {
		if s, ok := f.(syscall.Conn); ok {
			files = append(files, given{s, f.Close})
			return
		}
		err = errors.Join(err, errors.New("a socket that is no file"), f.Close())
	}
	for _, p := range ps {
		keep(p)
	}
	for _, l := range ls {
		keep(l)
	}
	if err != nil {
		for _, f := range files {
			err = errors.Join(err, f.close())
		}
		return 0, 0, nil, err
	}
	return len(ps), len(ls), files, nil
}

func (c *conn) resetFlows(ctx context.Context, local []netip.Addr) (int, error) {
	if err := c.areOwn(local, c.had); err != nil {
		return 0, err
	}
	n, err := c.session.ResetFlows(ctx, local)
	c.log.Info("flows ended", "count", n)
	return n, err
}

// trouble is an error as it travels.
func trouble(err error) *wire.Trouble {
	t := &wire.Trouble{Code: "internal", Message: err.Error()}
	var conflict *router.ConflictError
	if errors.As(err, &conflict) {
		t.Conflict = &wire.Conflict{Prefix: conflict.Prefix, Interface: conflict.Interface, Network: conflict.Network}
	}
	var coder interface{ Code() string }
	if errors.As(err, &coder) {
		t.Code = coder.Code()
	}
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) {
		t.Hint = hinter.Hint()
	}
	return t
}
