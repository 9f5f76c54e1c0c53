package crowd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/netwatch"
	"podnet.dev/client/userspace"
)

// laptop is one of the crowd. It visits the cluster again and again:
//
//	away --> connecting --> there: a deed, a pause, a deed ... --> leaving --> away
//	             |                        |                           |
//	             +------------------------+---------------------------+--> stuck: noted, left
type laptop struct {
	c      *crowd
	number int
	visits int // begun so far
	rand   *rand.Rand
	// vanished is when it last left without a goodbye.
	vanished time.Time
}

// visit is one session of a laptop, from connecting to leaving.
type visit struct {
	*laptop
	path    string
	host    *userspace.Host
	wire    *Wire
	cluster *wired
	session *client.Session
	news    chan netwatch.Event // of this laptop's network
	ready   chan struct{}       // closed when the session is
	ended   chan struct{}       // closed when Run has returned err
	err     error
	leave   context.CancelFunc
	http    *http.Client

	echo   net.Conn // open from the first deed that needs it to the end
	echoed *bufio.Reader
}

const (
	// connectLimit is above every limit of a session's own, so that one that
	// gives up says why.
	connectLimit = 30 * time.Second
	// leaveLimit is for a goodbye to an API server with much to do.
	leaveLimit = 15 * time.Second
	// visitDeeds is how many a visit has at most.
	visitDeeds = 20
)

// live visits until the time is over.
func (l *laptop) live(ctx context.Context) {
	for !l.c.over() && ctx.Err() == nil {
		v := l.newVisit(ctx)
		err := l.timed(ctx, "connect, "+v.path, connectLimit, v.connect)
		for n := 1 + l.rand.IntN(visitDeeds); err == nil && n > 0 && !l.c.over() && v.pause(ctx); n-- {
			err = v.deed(ctx)
		}
		if ctx.Err() == nil && err != nil {
			l.c.stuck(fmt.Sprintf("laptop %d, %v; %s", l.number, err, v.state()))
		}
		v.cluster.gone.Store(l.vanishes())
		if err := l.timed(context.WithoutCancel(ctx), "leave", leaveLimit, v.close); err != nil {
			l.c.stuck(fmt.Sprintf("laptop %d, %v", l.number, err))
			return // whatever still runs there is not to be doubled
		}
		v.pause(ctx)
	}
}

// vanishes decides how to leave. The leases of those who vanished count against
// their user's limit of five, so it does not happen often.
func (l *laptop) vanishes() bool {
	if !l.c.Vanish || l.rand.IntN(5) > 0 || time.Since(l.vanished) < time.Minute/2 {
		return false
	}
	l.vanished = time.Now()
	return true
}

// timed does something within limit and notes how long it took.
func (l *laptop) timed(ctx context.Context, what string, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s, after %v: %w", what, time.Since(start).Round(time.Millisecond), err)
	}
	l.c.did(what, time.Since(start))
	return nil
}

// pause is a moment of thought.
func (l *laptop) pause(ctx context.Context) bool {
	return wait(ctx, l.c.Pace/2+rand.N(l.c.Pace+1))
}

// newVisit starts a session. Most laptops leave the choice of the path to it.
func (l *laptop) newVisit(ctx context.Context) *visit {
	v := &visit{laptop: l, path: client.PathAuto, wire: NewWire(),
		news: make(chan netwatch.Event, 1), ready: make(chan struct{}), ended: make(chan struct{})}
	switch (l.number + l.visits) % 6 {
	case 0:
		v.path = client.PathAPIServer
	case 1:
		v.path = client.PathUDP
	}
	l.visits++
	log := l.c.Log.With("laptop", l.number)
	v.host = userspace.New(userspace.Config{Log: log})
	v.http = &http.Client{Transport: &http.Transport{DialContext: v.host.Dial, DisableKeepAlives: true}}
	request := l.c.Request(l.number)
	request.Path = v.path
	v.cluster = &wired{wire: v.wire}
	v.session = client.New(client.Config{
		Request: request,
		Events: func(e localapi.Event) {
			log.Log(ctx, slog.LevelDebug, "event", "type", string(e.Type), "phase", string(e.Phase), "text", e.Text)
			if e.Type == localapi.EventReady {
				close(v.ready)
			}
		},
		OpenCluster: func(kube localapi.Kube) (_ client.Cluster, err error) {
			v.cluster.Cluster, err = l.c.Open(kube)
			return v.cluster, err
		},
		OpenHelper: func(context.Context, func(string)) (helper.Session, error) { return v.host, nil },
		Dial:       v.host.Dial,
		Watch:      v.watch,
		Log:        log,
	})
	ctx, v.leave = context.WithCancel(ctx)
	go func() {
		defer close(v.ended)
		v.err = v.session.Run(ctx)
	}()
	return v
}

// tell makes the session hear of a change; one that it has not heard of yet
// stands for this one, too.
func (v *visit) tell(e netwatch.Event) {
	select {
	case v.news <- e:
	default:
	}
}

// watch is the session's view of the network: what the deeds say.
func (v *visit) watch(ctx context.Context) <-chan netwatch.Event {
	out := make(chan netwatch.Event)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-v.news:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// connect waits for the session to be ready.
func (v *visit) connect(ctx context.Context) error {
	select {
	case <-v.ready:
		return nil
	case <-v.ended:
		return v.end()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end is why the session ended by itself.
func (v *visit) end() error {
	if v.err == nil {
		return errors.New("the session ended")
	}
	return fmt.Errorf("the session ended: %w", v.err)
}

// close leaves and waits for everything to be over.
func (v *visit) close(ctx context.Context) error {
	if v.echo != nil {
		_ = v.echo.Close()
	}
	v.leave()
	select {
	case <-v.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if left := v.host.Open(); left > 0 {
		return fmt.Errorf("%d connections are open without a session", left)
	}
	return v.wire.Close()
}

// state is what a reader of a failure wants to know.
func (v *visit) state() string {
	s, warnings := v.session.Status()
	text := fmt.Sprintf("--path %s: phase %s, path %q %s %s, last handshake %s ago", v.path, s.Phase, s.Path.Kind, s.Path.Remote, s.Path.Reason, s.Tunnel.LastHandshake)
	for _, w := range warnings {
		text += "; warning: " + w.Text
	}
	return text
}

// during gives up on what a session that has ended cannot do any more.
func (v *visit) during(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			select {
			case <-v.ended:
				cancel()
			case <-ctx.Done():
			}
		}()
		err := do(ctx)
		cancel()
		<-watched
		select {
		case <-v.ended:
			return v.end()
		default:
			return err
		}
	}
}
