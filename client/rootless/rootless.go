// Package rootless is a session without privilege: inside this process, for programs
// that reach the cluster by a proxy or a port (package proxy). It changes nothing on
// the machine, and takes no notice of a session that the machine has.
package rootless

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"podnet.dev/client"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
	"podnet.dev/client/userspace"
)

// Options of Run.
type Options struct {
	// Session is the session; its host is made here.
	Session client.Config
	// Resolvers are asked for names that are not the cluster's.
	Resolvers []netip.AddrPort
	// Listen is where the proxy listens, host:port; empty: nowhere.
	Listen   string
	Forwards []proxy.Forward
	// Ready is called when the session is ready, with the proxy's address ("" without
	// one) and the forwards' ports.
	Ready func(proxy string, forwards []proxy.Forward)
}

// Run connects and serves until ctx is done or the session ends. It returns when all is
// undone: nil when ctx ended a session that was ready.
func Run(ctx context.Context, o Options) error {
	ports, err := open(ctx, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	host := userspace.New(userspace.Config{Resolvers: o.Resolvers, Outside: new(net.Dialer).DialContext, Log: o.Session.Log})
	ready := make(chan struct{})
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	failed := make(chan error, 1)
	serving.Go(func() {
		select {
		case <-ready:
			o.Ready(ports.names())
			if err := ports.serve(ctx, host.Dial); err != nil && ctx.Err() == nil {
				failed <- err
				cancel()
			}
		case <-ctx.Done():
			ports.close()
		}
	})
	err = On(ctx, host, o.Session, func() { close(ready) })
	select {
	case err = <-failed:
	default:
	}
	return err
}

// ports are what programs come to. They are taken before the session begins, so that
// one that is not to be had costs nobody a session.
type ports struct {
	proxy    net.Listener
	server   proxy.Server
	forwards []*proxy.Forwarding
}

func open(ctx context.Context, o Options) (_ *ports, err error) {
	p := &ports{server: proxy.Server{Log: o.Session.Log}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	taken := func(err error, hint string) error {
		return &localapi.Error{Code: localapi.CodeConflict, Message: err.Error(), Hint: hint}
	}
	if o.Listen != "" {
		var lc net.ListenConfig
		if p.proxy, err = lc.Listen(ctx, "tcp", o.Listen); err != nil {
			return nil, taken(err, "--listen 127.0.0.1:0 takes any free port")
		}
	}
	for _, f := range o.Forwards {
		open, err := f.Open(ctx)
		if err != nil {
			return nil, taken(fmt.Errorf("forward %s: %w", f, err), "--forward 0="+f.To+" takes any free port")
		}
		p.forwards = append(p.forwards, open)
	}
	return p, nil
}

func (p *ports) names() (at string, forwards []proxy.Forward) {
	if p.proxy != nil {
		at = p.proxy.Addr().String()
	}
	for _, f := range p.forwards {
		forwards = append(forwards, f.Forward)
	}
	return at, forwards
}

// serve serves all ports until ctx is done or one fails.
func (p *ports) serve(ctx context.Context, dial proxy.Dial) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.server.Dial = dial
	var wg sync.WaitGroup
	errs := make([]error, len(p.forwards)+1)
	serve := func(i int, serve func() error) {
		wg.Go(func() {
			if errs[i] = serve(); errs[i] != nil {
				cancel()
			}
		})
	}
	for i, f := range p.forwards {
		serve(i, func() error { return f.Serve(ctx, dial, p.server.Log) })
	}
	if p.proxy != nil {
		serve(len(p.forwards), func() error { return p.server.Serve(ctx, p.proxy) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *ports) close() {
	if p.proxy != nil {
		_ = p.proxy.Close()
	}
	for _, f := range p.forwards {
		_ = f.Close()
	}
}
