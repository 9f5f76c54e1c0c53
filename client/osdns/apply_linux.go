package osdns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func newManager(ctx context.Context, opts Options) (Manager, error) {
	if opts.JournalDir == "" {
		return nil, errors.New("set up dns: no folder for the journal")
	}
	if err := cleanup(ctx, opts); err != nil {
		return nil, fmt.Errorf("undo an earlier dns setup: %w", err)
	}
	conf, _ := os.ReadFile(opts.ResolvConf)
	nsswitch, _ := os.ReadFile(opts.NSSwitch)
	if wiredToResolved(conf, nsswitch) {
		m, err := newResolved(ctx, opts)
		if err == nil {
			return m, nil
		}
		opts.Log.Warn("systemd-resolved is in use but does not answer, writing the resolver configuration", "err", err)
	}
	if usesOpenresolv(opts, conf) {
		return newOpenresolv(opts), nil
	}
	return &direct{opts: opts, log: opts.Log}, nil
}

// cleanup follows the journal. One that cannot be read must not stop us, so
// the file's own lines serve then.
func cleanup(ctx context.Context, opts Options) error {
	j, err := readJournal(opts.JournalDir)
	if err != nil {
		opts.Log.Warn("dns journal is damaged", "err", err)
	}
	switch {
	case j == nil:
		err = restoreByItself(opts.ResolvConf)
	case j.Mode == ModeResolved:
		err = revertResolved(ctx, opts, j.Links)
	case j.Mode == ModeOpenresolv:
		err = revertOpenresolv(ctx, opts, j.Links)
	default:
		err = restore(j.Path, j.Original)
	}
	if err != nil {
		return err
	}
	removeLitter(opts.ResolvConf)
	return removeJournal(opts.JournalDir)
}

// restoreByItself is for a file of ours without a journal.
func restoreByItself(path string) error {
	o, err := readOriginal(path)
	if err != nil || !isOurs(o.Content) {
		return nil
	}
	content := recoverResolvConf(o.Content)
	o.ModTime = 0
	_, err = writeFile(path, content, o)
	return err
}

// removeLitter removes files that we were about to rename when we were
// killed.
func removeLitter(path string) {
	old, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".podnet-*"))
	for _, f := range old {
		os.Remove(f)
	}
}
