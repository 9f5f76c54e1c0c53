package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2s"

	"podnet.dev/gateway/agent/egress"
	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/version"
)

const (
	// loneliness is how long the agent stays without any gateway.
	loneliness = 60 * time.Second
	// drainTime is how long what is open may go on when the agent ends.
	drainTime = 500 * time.Millisecond
)

// errNoTable says that there is no redirection in this pod, as the Hello line
// tells in full.
var errNoTable = errors.New("no redirection in this pod")

// worker is the process that steers.
type worker struct {
	o      Options
	log    *slog.Logger
	intake intake
	lasts  bool // it does not end by itself
	wire   *wire
	serve  *serve.Server
	egress *egress.Server // nil: nothing leaves from here
	seen   *observer
	poked  chan struct{}         // something has changed, or its time has come
	forced atomic.Pointer[force] // what connections are decided by
	wg     sync.WaitGroup        // of the gateways' and laptops' goroutines

	// The main goroutine's.
	known    []control.Gateway
	alone    solitude
	compiled []control.Rule

	mu       sync.Mutex
	gateways map[key.Public]*gateway
	laptops  map[netip.Addr]*laptop
	ends     map[*tied]struct{} // what is open, or being opened, with laptops
}

// force is what is in force.
type force struct {
	set   *steer.Set
	rules map[string]control.Rule
}

// has reports whether a rule is in force, with the same way to the same laptop: its
// name may have come back with another rule behind it.
func (f *force) has(r control.Rule) bool {
	in, ok := f.rules[r.Name]
	return ok && in.Is(&r.Rule) && in.Laptop == r.Laptop && in.RelayPort == r.RelayPort
}

// tableID is the name of the redirection of the agent that has a key.
func tableID(k key.Public) string {
	sum := blake2s.Sum256(k[:])
	return hex.EncodeToString(sum[:4])
}

// newWorker makes a worker that takes nothing in yet. App and Listen of its
// server are those of c.
func newWorker(o Options, private key.Private, c serve.Config, log *slog.Logger) (w *worker, err error) {
	w = &worker{
		o: o, log: log, seen: newObserver(), poked: make(chan struct{}, 1), known: o.Gateways,
		gateways: map[key.Public]*gateway{}, laptops: map[netip.Addr]*laptop{}, ends: map[*tied]struct{}{},
	}
	w.forced.Store(&force{set: new(steer.Set)})
	if w.wire, err = newWire(private, log); err != nil {
		return nil, err
	}
	c.Rules = func(p steer.Protocol, port uint16) *steer.Port { return w.forced.Load().set.Port(p, port) }
	c.Laptop, c.Observer, c.NodeAddrs, c.Log = w.dialLaptop, w.seen.at, o.NodeAddrs, log
	w.serve = serve.New(c)
	return w, nil
}

// Close ends what is open.
func (w *worker) Close() error { return errors.Join(w.serve.Close(), w.wire.Close()) }

// run steers the pod of the calling process's network namespace until there is
// nothing left to do, or ctx ends. It says hello when it can begin, or why it
// cannot. When it returns, the redirection is gone.
func run(ctx context.Context, o Options, private key.Private, hello func(control.Hello) error, log *slog.Logger) (err error) {
	line := control.Hello{Podnet: control.Version, Version: version.Version, PodUID: o.PodUID, PublicKey: private.Public()}
	in := &redirected{} // nothing, with NoRedirect
	if !o.NoRedirect {
		if in, err = openRedirected(tableID(private.Public()), uint32(os.Getgid())); err != nil {
			line.Error = err.Error()
			var hinted interface{ Hint() string }
			if errors.As(err, &hinted) {
				line.Hint = hinted.Hint()
			}
			return errors.Join(errNoTable, err, hello(line))
		}
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := hello(line); err != nil {
		return err
	}
	if why := in.translates(); why != nil {
		log.Warn("TCP is redirected by translation of addresses", "err", why)
	}
	o.NodeAddrs = append(routers(), o.NodeAddrs...)
	w, err := newWorker(o, private, serve.Config{}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	in.serve, w.intake = w.serve, in
	out, err := w.wire.stack.ListenTCP(netip.AddrPortFrom(private.Public().Address6(), control.EgressPort))
	if err != nil {
		return err
	}
	w.egress = egress.New(log, w.seen.left)
	w.egress.Control = redirect.ControlDialer
	leaving, cancel := context.WithCancel(ctx)
	left := make(chan error, 1)
	go func() { left <- w.egress.Serve(leaving, out) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-left)
	}()
	return w.run(ctx)
}

// run steers until there is nothing left to do, or ctx ends, and takes nothing
// in when it returns.
func (w *worker) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer w.wg.Wait()
	defer cancel()
	defer w.retreat()
	w.wg.Go(func() { w.pulse(ctx) })
	return w.steer(ctx)
}

// pulse has all done together that is to be done each second, so that an agent at
// rest wakes for it once: the ports are redirected on, and who is connected is told
// that the agent is there.
func (w *worker) pulse(ctx context.Context) {
	tick := time.NewTicker(min(redirect.RefreshEvery, control.Beat))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.poke()
		w.mu.Lock()
		for _, g := range w.gateways {
			wake(g.notify)
		}
		for _, l := range w.laptops {
			wake(l.notify)
		}
		w.mu.Unlock()
	}
}

// retreat leaves the ports to the pod's own program, and gives what is open a
// moment to end: the kernel stops to translate its addresses with the table.
func (w *worker) retreat() {
	_, err := w.intake.take(nil)
	if err := errors.Join(w.put(nil), err); err != nil {
		w.log.Warn("redirection not emptied", "err", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	w.serve.Drain(ctx)
}

// steer does what is to be done at each pulse, and whenever something changed.
func (w *worker) steer(ctx context.Context) error {
	for {
		if why := w.step(ctx, time.Now()); why != "" {
			w.log.Info("agent ends", "why", why)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wire.tunnel.Done():
			return errors.New("the tunnel has closed by itself")
		case <-w.poked:
		}
	}
}

func (w *worker) poke() { wake(w.poked) }

// step makes everything as the gateways wish it. It says why the agent is to end
// on purpose; "": it is not.
func (w *worker) step(ctx context.Context, now time.Time) (why string) {
	w.mu.Lock()
	views := w.viewsLocked()
	w.mu.Unlock()
	wish := merge(views)
	if w.o.NoRedirect {
		wish = wish.untouched()
	}
	switch {
	case w.lasts:
	case wish.end:
		return "no rule is left"
	case w.alone.tooLong(now, len(views) > 0):
		return "no gateway answers"
	}
	if wish.heard { // else all stay known, and their counts, until somebody is heard again
		w.seen.follow(wish.rules, wish.leaving)
		if len(wish.gateways) > 0 {
			w.known = wish.gateways
		}
	}
	if w.egress != nil {
		w.egress.Set(wish.egress)
	}
	trouble := wish.refused
	if err := w.follow(ctx, wish); err != nil {
		trouble = append(trouble, err)
	}
	inForce, err := w.enforce(wish)
	if err != nil {
		trouble = append(trouble, err)
	}
	w.settle(wish, inForce, trouble, now)
	return ""
}

func (w *worker) viewsLocked() []view {
	var views []view
	for _, g := range w.gateways {
		if g.beats {
			views = append(views, view{g.key, g.set, g.since})
		}
	}
	return views
}

// solitude is since when no gateway beats; zero: one does.
type solitude struct{ since time.Time }

// tooLong reports whether it has lasted for all of loneliness.
func (s *solitude) tooLong(now time.Time, beats bool) bool {
	switch {
	case beats:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	return !beats && now.Sub(s.since) >= loneliness
}

// follow has exactly the gateways and the laptops that are wished for.
func (w *worker) follow(ctx context.Context, wish wish) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var begin []func()
	keys := map[key.Public]bool{}
	for _, known := range w.known {
		k := known.PublicKey
		keys[k] = true
		if w.gateways[k] == nil {
			ctx, cancel := context.WithCancel(ctx)
			g := &gateway{key: k, cancel: cancel, notify: make(chan struct{}, 1)}
			w.gateways[k] = g
			begin = append(begin, func() { w.keepGateway(ctx, g) })
		}
	}
	for k, g := range w.gateways {
		if !keys[k] {
			g.cancel()
			delete(w.gateways, k)
		}
	}
	ways := map[netip.Addr]key.Public{}
	for addr, all := range wish.ways {
		l := w.laptops[addr]
		if l == nil {
			ctx, cancel := context.WithCancel(ctx)
			l = &laptop{addr: addr, cancel: cancel, notify: make(chan struct{}, 1), moved: make(chan struct{})}
			w.laptops[addr] = l
			begin = append(begin, func() { w.keepLaptop(ctx, l) })
		}
		l.goLocked(all)
		if k, ok := l.wayLocked(); ok {
			ways[addr] = k
		}
	}
	for addr, l := range w.laptops {
		if _, ok := wish.ways[addr]; !ok {
			l.cancel()
			delete(w.laptops, addr)
		}
	}
	err := w.wire.set(w.known, ways)
	for _, f := range begin {
		w.wg.Go(f)
	}
	return err
}

// enforce redirects the ports of the rules whose laptop is there, and returns the
// names of those rules that are in force.
func (w *worker) enforce(wish wish) (inForce map[string]bool, err error) {
	var rules []control.Rule
	w.mu.Lock()
	for _, r := range wish.rules {
		if l := w.laptops[r.Laptop]; l != nil && l.up {
			rules = append(rules, r)
		}
	}
	w.mu.Unlock()
	if !reflect.DeepEqual(rules, w.compiled) {
		if err := w.put(rules); err != nil {
			return nil, err
		}
	}
	var ports []serve.PortKey
	for _, r := range rules {
		if k := (serve.PortKey{Protocol: r.Protocol, Port: r.Port}); !slices.Contains(ports, k) {
			ports = append(ports, k)
		}
	}
	taken, err := w.intake.take(ports)
	inForce = map[string]bool{}
	for _, r := range rules {
		inForce[r.Name] = slices.Contains(taken, serve.PortKey{Protocol: r.Protocol, Port: r.Port})
	}
	return inForce, err
}

// put has connections decided by rules from now on. What is open with a laptop
// for a rule that is not among them ends.
func (w *worker) put(rules []control.Rule) error {
	f := &force{rules: map[string]control.Rule{}}
	plain := make([]steer.Rule, len(rules))
	for i, r := range rules {
		plain[i], f.rules[r.Name] = r.Rule, r
	}
	var err error
	if f.set, err = steer.Compile(plain); err != nil {
		return err
	}
	w.forced.Store(f)
	w.compiled = rules
	w.cut(f)
	return nil
}

// settle tells gateways and laptops what is in force. A gateway hears of its rule
// set when each laptop of it has been tried, or had its time.
func (w *worker) settle(wish wish, inForce map[string]bool, trouble []error, now time.Time) {
	names := map[netip.Addr][]string{}
	for _, r := range wish.rules {
		if inForce[r.Name] {
			names[r.Laptop] = append(names[r.Laptop], r.Name)
		}
	}
	text := describe(trouble)
	w.mu.Lock()
	defer w.mu.Unlock()
	for addr, l := range w.laptops {
		if !slices.Equal(l.rules, names[addr]) {
			l.rules = names[addr]
			w.log.Info("rules in force", "addr", addr, "rules", l.rules)
			wake(l.notify)
		}
	}
	for _, g := range w.gateways {
		generation := g.inForce
		if g.beats && g.set != nil && (w.triedLocked(g.set) || now.Sub(g.setAt) > control.Silence) {
			generation = g.set.Generation
		}
		if generation != g.inForce || text != g.trouble {
			g.inForce, g.trouble = generation, text
			wake(g.notify)
		}
	}
}

func (w *worker) triedLocked(set *control.Set) bool {
	return !slices.ContainsFunc(set.Rules, func(r control.Rule) bool {
		l := w.laptops[r.Laptop]
		return l != nil && !l.tried
	})
}

// describe makes a line of what is wrong.
func describe(trouble []error) string {
	var texts []string
	for _, err := range trouble {
		texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return short(strings.Join(texts, "; "))
}
