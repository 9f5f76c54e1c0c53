// Package tray is what stands behind podnet's icon in a panel: which menu follows
// from what the daemon says, which is pure, and what a click does. It speaks the
// daemon's local API and nothing else. How an icon gets into a panel is up to a
// Desktop.
package tray

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
)

// Desktop is the user's. Its methods do not call back, and may be called by several
// goroutines at once.
type Desktop interface {
	// Show makes icon and menu what m says.
	Show(m Menu)
	// Clicks are the Actions of the items that the user clicks. Opened has a value
	// when somebody looks at the menu.
	Clicks() <-chan Action
	Opened() <-chan struct{}
	// Notify shows n where there is something that does.
	Notify(n Note)
	// Copy puts text into the clipboard.
	Copy(ctx context.Context, text string) error
	// Open shows a page of the web.
	Open(url string) error
	// StartsAtLogin says whether this program does, and whether that can be changed.
	StartsAtLogin() (on, can bool)
	SetStartsAtLogin(on bool) error
}

// Options of a tray.
type Options struct {
	Client  *localapi.Client
	Desktop Desktop
	// StartDaemon starts a daemon in the background and returns when it answers. It
	// is called when the user asks for something that needs one.
	StartDaemon func(ctx context.Context) error
	// Environ is the user's environment, which kubeconfigs depend on. It names the
	// folder of the configuration as well.
	Environ []string
	// Version is this program's.
	Version string
	// Docs is the URL of the documentation; empty: there is none.
	Docs string
	Log  *slog.Logger
}

// Run shows how things stand, and does what is clicked, until ctx is done or the user
// quits. What is connected stays connected.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	t := &tray{Options: o, config: config.StoreOf(o.Environ), look: make(chan struct{}, 1)}
	t.state.Version, t.state.Docs, t.state.Notify = o.Version, o.Docs, true
	t.configure(&t.state)
	t.state.StartsAtLogin, t.state.CanStartAtLogin = o.Desktop.StartsAtLogin()
	t.menu = MenuOf(t.state)
	o.Desktop.Show(t.menu)
	defer t.working.Wait()
	defer cancel()
	t.working.Go(func() { t.follow(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-o.Desktop.Clicks():
			switch a.Verb {
			case QuitAll:
				ctx, cancel := context.WithTimeout(ctx, actTime)
				defer cancel()
				t.complain(ctx, a, t.disconnect(ctx, ""))
				return nil
			case Quit:
				return nil
			}
			t.working.Go(func() { t.do(ctx, a) })
		}
	}
}

type tray struct {
	Options
	config  config.Store
	working sync.WaitGroup
	asking  sync.Mutex // so that what is older is not taken for newer
	// look has a value when something has been done whose outcome is to be seen.
	look chan struct{}

	mu    sync.Mutex
	state State
	menu  Menu // that is shown
}

// change changes the state, and what is to be seen and heard of it. What f changes of
// slices and maps it replaces.
func (t *tray) change(f func(*State)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.state
	f(&t.state)
	if t.state.Notify {
		for _, n := range notes(before, t.state) {
			t.Desktop.Notify(n)
		}
	}
	if m := MenuOf(t.state); !reflect.DeepEqual(m, t.menu) {
		t.menu = m
		t.Desktop.Show(m)
	}
}

// now is the state as it is.
func (t *tray) now() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// soon has the daemon asked again.
func (t *tray) soon() {
	select {
	case t.look <- struct{}{}:
	default: // somebody has asked for it already
	}
}

const (
	// callTime is how long the daemon may take to answer a question about itself, and
	// catalogTime one that it asks a cluster about.
	callTime    = 5 * time.Second
	catalogTime = 10 * time.Second
	// numbersEvery is how old round trips and counters may get.
	numbersEvery = 5 * time.Second
	// absentEvery is how soon a daemon is noticed that somebody has started.
	absentEvery = 2 * time.Second
	// catalogEvery is how old what the kubeconfig and the cluster have may get while
	// nobody looks.
	catalogEvery = time.Minute
	// settling is how long an event's companions are waited for.
	settling = 100 * time.Millisecond
)

// follow keeps the state what the daemon says, of one daemon after the other.
func (t *tray) follow(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		case <-t.look:
		case <-t.Desktop.Opened():
		}
		seq, err := t.ask(ctx)
		if err == nil {
			t.listen(ctx, seq)
			_, err = t.ask(ctx)
		}
		if err != nil && ctx.Err() == nil {
			t.gone(err)
		}
		pause.Reset(absentEvery)
	}
}

// listen follows one daemon until it is gone. Only then does silence count: what it
// said last is heard before.
func (t *tray) listen(ctx context.Context, seq int64) {
	events := make(chan localapi.Event)
	ctx, cancel := context.WithCancel(ctx)
	var streaming sync.WaitGroup
	streaming.Go(func() {
		defer close(events)
		err := t.Client.Events(ctx, seq, func(e localapi.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		t.Log.Debug("the daemon's events are over", "err", err)
	})
	defer streaming.Wait()
	defer cancel()
	var c catalog
	c.refresh(ctx, t, true)
	tick := time.NewTicker(numbersEvery)
	defer tick.Stop()
	settled := time.NewTimer(time.Hour)
	defer settled.Stop()
	for {
		looking := false
		select {
		case e, more := <-events:
			if !more {
				return
			}
			t.hear(e)
			settled.Reset(settling)
			continue
		case <-settled.C:
		case <-tick.C:
		case <-t.look:
		case <-t.Desktop.Opened():
			looking = true
		case <-ctx.Done():
			return
		}
		if _, err := t.ask(ctx); err == nil {
			c.refresh(ctx, t, looking)
		}
	}
}

// hear takes from an event what a status does not say.
func (t *tray) hear(e localapi.Event) {
	if e.Type == localapi.EventDisconnected {
		t.part(e.Connection)
	}
}

// part notes that somebody has asked for the end of sessions.
func (t *tray) part(names ...string) {
	t.change(func(s *State) {
		parted := maps.Clone(s.Parted)
		if parted == nil {
			parted = map[string]bool{}
		}
		for _, name := range names {
			parted[name] = true
		}
		s.Parted = parted
	})
}

// ask asks how things stand.
func (t *tray) ask(ctx context.Context) (seq int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	t.asking.Lock()
	defer t.asking.Unlock()
	status, err := t.Client.Status(ctx)
	if err != nil {
		return 0, err
	}
	v, err := t.Client.Version(ctx)
	if err != nil {
		return 0, err
	}
	rules := t.rules(ctx, status)
	t.change(func(s *State) {
		if ready(status) > ready(s.Status) {
			s.Failed = nil
		}
		s.Known, s.DaemonVersion, s.Status, s.Rules = true, v.Version, status, rules
		s.Parted = maps.Clone(s.Parted)
		for _, c := range status.Connections {
			delete(s.Parted, c.Name)
		}
	})
	return status.Seq, nil
}

// gone is what is left to say without a daemon. Why the last session ended is known
// on.
func (t *tray) gone(why error) {
	t.Log.Debug("no daemon", "err", why)
	t.change(func(s *State) {
		s.Known, s.DaemonVersion, s.Rules, s.Services, s.Namespaces = true, "", nil, nil, nil
		last := s.Status.LastError
		s.Status = localapi.NewStatus()
		s.Status.LastError = last
	})
}

// rules are the sessions' own.
func (t *tray) rules(ctx context.Context, status localapi.Status) (all []Rule) {
	for _, c := range status.Connections {
		if c.Steering.Count == 0 {
			continue
		}
		list, err := t.Client.For(c.Name).Steered(ctx, false, "")
		if err != nil {
			t.Log.Debug("no rules", "session", c.Name, "err", err)
		}
		for _, r := range list.Rules {
			all = append(all, Rule{c.Name, r})
		}
	}
	return all
}

// catalog knows for when what may be chosen from holds.
type catalog struct {
	until time.Time
	of    string // session, namespace
}

// refresh asks what may be chosen from, when that is old, another session's, or
// somebody looks.
func (k *catalog) refresh(ctx context.Context, t *tray, looking bool) {
	primary, ready := t.now().Primary()
	of := place(primary.Name, primary.Namespace)
	if !looking && of == k.of && time.Now().Before(k.until) {
		return
	}
	k.of, k.until = of, time.Now().Add(catalogEvery)
	ctx, cancel := context.WithTimeout(ctx, catalogTime)
	defer cancel()
	if err := t.list(ctx); err != nil {
		t.Log.Debug("no contexts", "err", err)
	}
	var namespaces []string
	var services []localapi.Service
	if ready {
		var err error
		if services, err = t.Client.For(primary.Name).Services(ctx, primary.Namespace); err != nil {
			t.Log.Debug("no Services", "session", primary.Name, "err", err)
		}
		if primary.AllNamespaces {
			if namespaces, err = t.Client.For(primary.Name).Namespaces(ctx); err != nil {
				t.Log.Debug("no namespaces", "session", primary.Name, "err", err)
			}
		}
	}
	t.change(func(s *State) {
		s.Services, s.Namespaces = services, namespaces
		t.configure(s)
	})
}

// list asks for the kubeconfig's contexts.
func (t *tray) list(ctx context.Context) error {
	contexts, err := t.Client.Contexts(ctx, t.kube(nil))
	if err == nil {
		t.change(func(s *State) { s.Contexts, s.ContextsKnown = contexts, true })
	}
	return err
}

// configure takes from the configuration what the menu has of it. While it is broken
// all stays as it was; who connects is told.
func (t *tray) configure(s *State) {
	c, err := t.config.Load()
	if err != nil {
		t.Log.Warn("the configuration cannot be read", "err", err)
		return
	}
	s.Notify, s.Reconnect, s.Profiles = c.Tray.Notify, c.Flag("reconnect") == "true", nil
	for _, p := range c.Profiles {
		s.Profiles = append(s.Profiles, p.Name)
	}
}

// kube is whose cluster is meant, by the user's kubeconfig and these kubectl flags.
func (t *tray) kube(flags map[string][]string) localapi.Kube {
	return localapi.Kube{Flags: flags, Env: t.Environ}
}
