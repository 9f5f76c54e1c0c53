package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle       = 50 * time.Millisecond // after a change, before looking at it
	repairLimit  = 10                    // repairs
	repairWindow = 5 * time.Second       // within this long: somebody means it
)

// direct writes /etc/resolv.conf and watches over it.
//
//	idle --Set--> held --Set(zero), Close--> idle
//	held --10 overwrites in 5 s--> yielded --Set--> held
type direct struct {
	opts Options
	log  *slog.Logger

	mu       sync.Mutex
	want     Config       // the first of the wish
	own      []netip.Addr // servers of ours, of the whole wish
	original *original    // nil: idle
	written  []byte       // what the file should hold
	repairs  []time.Time
	yielded  bool
	watcher  *fsnotify.Watcher
	done     chan struct{} // closed when the watching has ended
	closed   bool
}

var _ Manager = (*direct)(nil)

func (d *direct) Mode() string { return ModeDirect }

func (d *direct) Set(ctx context.Context, want []Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := check(d.closed, want); err != nil {
		return err
	}
	if len(want) == 0 {
		return d.revertLocked()
	}
	fresh := d.original == nil
	if fresh {
		if err := d.takeOriginalLocked(); err != nil {
			return err
		}
	}
	d.want, d.own = want[0].clone(), serversOf(want)
	d.yielded, d.repairs = false, nil
	if err := d.writeLocked(); err != nil {
		if fresh {
			err = errors.Join(err, d.revertLocked())
		}
		return err
	}
	return d.watchLocked()
}

// takeOriginalLocked notes what is there, in the journal too.
func (d *direct) takeOriginalLocked() error {
	o, err := readOriginal(d.opts.ResolvConf)
	if err != nil {
		return err
	}
	if isOurs(o.Content) {
		o.Content = recoverResolvConf(o.Content)
	}
	if err := writeJournal(d.opts.JournalDir, &journal{Mode: ModeDirect, Path: d.opts.ResolvConf, Original: o}); err != nil {
		return err
	}
	d.original = o
	return nil
}

func (d *direct) writeLocked() error {
	content := planResolvConf(d.original.Content, d.want)
	now, err := os.ReadFile(d.opts.ResolvConf)
	d.written = content
	if err == nil && bytes.Equal(now, content) {
		return nil
	}
	like := *d.original
	like.ModTime = 0
	how, err := writeFile(d.opts.ResolvConf, content, &like)
	if err == nil {
		d.log.Debug("resolver configuration written", "file", d.opts.ResolvConf, "in_place", how == inPlace)
	}
	return err
}

func (d *direct) revertLocked() error {
	if d.original == nil {
		return nil
	}
	if err := restore(d.opts.ResolvConf, d.original); err != nil {
		return err // the journal stays: there is something left to undo
	}
	d.original, d.want, d.own, d.written = nil, Config{}, nil, nil
	return removeJournal(d.opts.JournalDir)
}

// Base reads a symlink's target anew each time: its owner (NetworkManager,
// resolvconf) goes on writing there while we stand in the link's place.
func (d *direct) Base() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := d.opts.ResolvConf
	if d.original == nil {
		content, _ := os.ReadFile(path)
		if isOurs(content) {
			content = recoverResolvConf(content)
		}
		return baseServers(content, nil)
	}
	content := d.original.Content
	if d.original.Kind == kindSymlink {
		target := d.original.Target
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		if live, err := os.ReadFile(target); err == nil && !isOurs(live) {
			content = live
		}
	}
	return baseServers(content, d.own)
}

func (d *direct) Close() error {
	d.mu.Lock()
	d.closed = true
	err := d.revertLocked()
	w, done := d.watcher, d.done
	d.watcher = nil
	d.mu.Unlock()
	if w != nil {
		err = errors.Join(err, w.Close())
	}
	if done != nil {
		<-done
	}
	return err
}

// watchLocked begins to watch, once. The folder is watched because most
// programs replace the file; the file itself because a mount point's changes
// do not show in the folder.
func (d *direct) watchLocked() error {
	if d.watcher != nil {
		d.watcher.Add(d.opts.ResolvConf) // it may be a new file
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(filepath.Dir(d.opts.ResolvConf)); err != nil {
			w.Close()
		}
	}
	if err != nil {
		// Names work all the same; only repairs do not happen.
		d.log.Warn("resolver configuration is not watched", "file", d.opts.ResolvConf, "err", err)
		return nil
	}
	w.Add(d.opts.ResolvConf)
	d.watcher, d.done = w, make(chan struct{})
	go func() {
		defer close(d.done)
		d.watch(w)
	}()
	return nil
}

func (d *direct) watch(w *fsnotify.Watcher) {
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			if ev.Name == d.opts.ResolvConf && ev.Op != fsnotify.Chmod {
				timer.Reset(settle) // writers take more than one step
			}
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			timer.Reset(settle) // events were lost: look
		case <-timer.C:
			d.repair()
		}
	}
}

// repair takes the file back after somebody has overwritten it. What they
// wrote is what the host would have now without us: it becomes the file to
// put back, and the base resolvers are those that it names. (A DHCP client on
// a new network does this; the old network's resolvers are of no use there.)
func (d *direct) repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.original == nil || d.closed || d.yielded {
		return
	}
	now, err := readOriginal(d.opts.ResolvConf)
	if err != nil || bytes.Equal(now.Content, d.written) {
		return
	}
	cutoff := time.Now().Add(-repairWindow)
	for len(d.repairs) > 0 && d.repairs[0].Before(cutoff) {
		d.repairs = d.repairs[1:]
	}
	if len(d.repairs) >= repairLimit {
		d.yielded = true
		d.log.Warn("resolver configuration is overwritten again and again, leaving it alone", "file", d.opts.ResolvConf)
		d.opts.Warn(fmt.Sprintf("another program keeps overwriting %s; cluster names may not resolve", d.opts.ResolvConf))
		return
	}
	d.repairs = append(d.repairs, time.Now())
	if adoptable(now, d.own) {
		if err := writeJournal(d.opts.JournalDir, &journal{Mode: ModeDirect, Path: d.opts.ResolvConf, Original: now}); err != nil {
			d.log.Warn("resolver configuration not repaired", "err", err)
			return
		}
		d.original = now
	}
	if err := d.writeLocked(); err != nil {
		d.log.Warn("resolver configuration not repaired", "err", err)
		return
	}
	if d.watcher != nil {
		d.watcher.Add(d.opts.ResolvConf)
	}
	d.log.Info("resolver configuration repaired after another program wrote it", "file", d.opts.ResolvConf)
}

// adoptable says whether a foreign file can stand for the host's own wish: it
// names resolvers, and not ours.
func adoptable(now *original, own []netip.Addr) bool {
	if now.Kind == kindAbsent || isOurs(now.Content) || len(parseResolvConf(now.Content).servers) == 0 {
		return false
	}
	for _, a := range parseResolvConf(now.Content).servers {
		for _, o := range own {
			if a == o {
				return false
			}
		}
	}
	return true
}
