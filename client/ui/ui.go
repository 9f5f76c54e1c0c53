// Package ui is the dashboard: pages on a port of this machine's loopback that show
// what the daemon does, live, and have buttons for what one does most. It knows the
// daemon by its local API only.
//
// The pages are for whoever was given a URL by that API, and for nobody else on this
// machine: see door. They are made on the server, are whole without scripts, and a
// small one keeps them up to date.
package ui

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"podnet.dev/client/localapi"
)

const (
	// tokenTime is how long a URL is good for.
	tokenTime = time.Minute
	// quietTime is for how long nobody has a page open before the port is closed.
	quietTime = 10 * time.Minute
	// maxConns is how many connections there may be at the same time: every user of
	// this machine can open some, and those who come from elsewhere are only told so
	// when they ask for something. A browser has half a dozen.
	maxConns = 64
)

// Config of a Dashboard.
type Config struct {
	// Client speaks to the daemon.
	Client *localapi.Client
	// Quiet is for how long nobody has a page open before the port is closed; 0: ten
	// minutes.
	Quiet time.Duration
	Log   *slog.Logger
}

// Dashboard is the pages of one daemon. It listens only while it is wanted.
type Dashboard struct {
	cfg    Config
	asks   chan ask
	over   chan struct{} // closed when Run returns
	wanted atomic.Bool
}

// ask is somebody who wants to see it.
type ask struct {
	kube  localapi.Kube
	reply chan<- reply
}

type reply struct {
	ui  localapi.UI
	err error
}

// New makes a Dashboard; Run runs it, once.
func New(cfg Config) *Dashboard {
	cfg.Quiet = cmp.Or(cfg.Quiet, quietTime)
	return &Dashboard{cfg: cfg, asks: make(chan ask), over: make(chan struct{})}
}

// Wanted says that somebody may have a page open.
func (d *Dashboard) Wanted() bool { return d.wanted.Load() }

// Open gives a URL that lets one browser in, once. kube in req is what the pages
// connect with.
func (d *Dashboard) Open(ctx context.Context, req localapi.UIRequest) (localapi.UI, error) {
	answer := make(chan reply, 1)
	select {
	case d.asks <- ask{req.Kube, answer}:
	case <-ctx.Done():
		return localapi.UI{}, ctx.Err()
	case <-d.over:
		return localapi.UI{}, &localapi.Error{Code: localapi.CodeDaemon, Message: "the daemon is stopping", Hint: "try again", Status: http.StatusServiceUnavailable}
	}
	r := <-answer
	return r.ui, r.err
}

// Run serves whenever somebody asks, until ctx is done.
func (d *Dashboard) Run(ctx context.Context) {
	defer close(d.over)
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-d.asks:
			ln, err := listen()
			if err != nil {
				a.reply <- reply{err: fmt.Errorf("open a port for the dashboard: %w", err)}
				continue
			}
			d.wanted.Store(true)
			d.serve(ctx, ln, a)
			d.wanted.Store(false)
		}
	}
}

// listen opens a port of loopback. Cookies know no ports: what listens on another port
// of the same address would be sent ours. So the address is one of our own where the
// system has all of 127.0.0.0/8.
func listen() (net.Listener, error) {
	if runtime.GOOS != "darwin" {
		own := [4]byte{127}
		_, _ = rand.Read(own[1:]) // never fails
		own[3] = max(1, min(own[3], 254))
		if ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4(own), 0).String()); err == nil {
			return ln, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// serve lets first in, and whoever asks later, until nobody has had a page open for
// some time.
func (d *Dashboard) serve(ctx context.Context, ln net.Listener, first ask) {
	ctx, stop := context.WithCancel(ctx)
	s := &site{client: d.cfg.Client, log: d.cfg.Log, door: newDoor(ln.Addr().String()), history: newHistory(), news: newNews()}
	srv := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug),
	}
	d.cfg.Log.Info("dashboard opened", "addr", ln.Addr())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(netutil.LimitListener(ln, maxConns)); !errors.Is(err, http.ErrServerClosed) {
			d.cfg.Log.Warn("dashboard not served", "err", err)
			stop()
		}
	})
	wg.Go(func() { s.history.follow(ctx, s.client) })
	wg.Go(func() { s.news.follow(ctx, s.client) })
	defer wg.Wait()
	defer func() {
		stop()
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
		d.cfg.Log.Info("dashboard closed")
	}()

	first.reply <- reply{ui: s.door.invite(first.kube, time.Now())}
	tick := time.NewTicker(max(d.cfg.Quiet/20, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-d.asks:
			a.reply <- reply{ui: s.door.invite(a.kube, time.Now())}
		case now := <-tick.C:
			if s.door.quiet(now) > d.cfg.Quiet {
				return
			}
		}
	}
}
