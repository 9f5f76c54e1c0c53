package helper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

// Options of a Host.
type Options struct {
	// StateDir holds the journals of what to take back. It must outlive a
	// reboot and be the same for every podnet of this host's network.
	StateDir string
	// Guard is the command that calls Guard in a process of its own, which
	// takes back what the kernel does not when we are killed. Empty: none.
	Guard []string
	Log   *slog.Logger
}

// Host is this machine, as the sessions of one process share it:
//
//	no session --Open--> held: lock, guard, the resolver --the last Close--> no session
//
// A device, its addresses and routes are one session's. The host's resolver is
// one for all: it is told the wishes of all sessions at once, so that none takes
// away what is another's.
type Host struct {
	opts Options

	// opening is held while the host is being taken or given back. What follows
	// changes then only, and is there for as long as a session is.
	opening sync.Mutex
	dns     osdns.Manager
	guard   *guard
	unlock  func()
	router  router.Router

	// naming is held while the resolver is told, so that it hears the newest last.
	naming sync.Mutex

	mu       sync.Mutex
	sessions []*session // in the order in which they were opened
}

// NewHost prepares; the first Open looks at the machine.
func NewHost(o Options) *Host { return &Host{opts: o} }

// Open gives a session what it needs to change the host. The first one takes
// back what a killed podnet may have left. It changes nothing else. warn hears of
// what the user should know, such as a program that overwrites resolv.conf.
func (h *Host) Open(ctx context.Context, warn func(string)) (Session, error) {
	h.opening.Lock()
	defer h.opening.Unlock()
	h.mu.Lock()
	first := len(h.sessions) == 0
	h.mu.Unlock()
	if first {
		if err := h.take(ctx); err != nil {
			return nil, errors.Join(err, h.giveBack())
		}
	}
	s := &session{host: h, warn: warn}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions = append(h.sessions, s)
	return s, nil
}

// take makes the host ours; opening is held.
func (h *Host) take(ctx context.Context) (err error) {
	if h.router, err = router.New(); err != nil {
		return &PrivilegeError{err}
	}
	if err := os.MkdirAll(h.opts.StateDir, 0o700); err != nil {
		return &PrivilegeError{err}
	}
	if h.unlock, err = lockState(ctx, h.opts.StateDir); err != nil {
		return err
	}
	if err := dropLinks(h.opts.StateDir); err != nil {
		return err
	}
	if h.dns, err = osdns.New(ctx, osdns.Options{Log: h.opts.Log, JournalDir: h.opts.StateDir, Warn: h.warn}); err != nil {
		return fmt.Errorf("look at the host's resolver: %w", err)
	}
	if len(h.opts.Guard) > 0 {
		if h.guard, err = startGuard(h.opts.Guard); err != nil {
			return err
		}
	}
	return nil
}

// giveBack is in the order of the least harm: names first, since a resolver that
// points at nobody breaks everything; the guard last, as long as there is
// something to guard. opening is held.
func (h *Host) giveBack() error {
	var err error
	if h.dns != nil {
		err = h.dns.Close()
	}
	if h.unlock != nil {
		err = errors.Join(err, dropLinks(h.opts.StateDir))
	}
	if h.guard != nil {
		err = errors.Join(err, h.guard.stop())
	}
	if h.unlock != nil {
		h.unlock()
	}
	h.dns, h.guard, h.unlock = nil, nil, nil
	return err
}

// leave takes a session's wishes back, and with the last one's everything.
func (h *Host) leave(s *session) error {
	err := h.setDNS(context.Background(), s, osdns.Config{})
	err = errors.Join(err, removeLink(s.name, s.index))
	h.opening.Lock()
	defer h.opening.Unlock()
	h.mu.Lock()
	h.sessions = slices.DeleteFunc(h.sessions, func(o *session) bool { return o == s })
	last := len(h.sessions) == 0
	h.mu.Unlock()
	if last {
		err = errors.Join(err, h.giveBack())
	}
	return err
}

// setDNS tells the host's resolver what a session wishes, beside the others'.
func (h *Host) setDNS(ctx context.Context, s *session, want osdns.Config) error {
	h.naming.Lock()
	defer h.naming.Unlock()
	h.mu.Lock()
	was := s.dns
	s.dns = want
	h.mu.Unlock()
	err := h.dns.Set(ctx, h.wishes())
	if err != nil && !want.IsZero() {
		h.mu.Lock()
		s.dns = was
		h.mu.Unlock()
		if undo := h.dns.Set(context.WithoutCancel(ctx), h.wishes()); undo != nil {
			err = errors.Join(err, undo)
		}
	}
	return err
}

// wishes are those of all sessions, the primary's first.
func (h *Host) wishes() []osdns.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []osdns.Config
	for _, s := range h.sessions {
		switch {
		case s.dns.IsZero():
		case s.dns.Primary:
			all = slices.Insert(all, 0, s.dns)
		default:
			all = append(all, s.dns)
		}
	}
	return all
}

// warn tells all sessions.
func (h *Host) warn(text string) {
	h.mu.Lock()
	all := slices.Clone(h.sessions)
	h.mu.Unlock()
	for _, s := range all {
		s.warn(text)
	}
}
