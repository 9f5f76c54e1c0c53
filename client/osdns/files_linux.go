package osdns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readOriginal takes down what is at path: content, kind and owner.
func readOriginal(path string) (*original, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &original{Kind: kindAbsent, UID: os.Geteuid(), GID: os.Getegid()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at resolver configuration: %w", err)
	}
	o := &original{Kind: kindFile, Perm: info.Mode().Perm(), ModTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		o.UID, o.GID = int(st.Uid), int(st.Gid)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		o.Kind = kindSymlink
		if o.Target, err = os.Readlink(path); err != nil {
			return nil, fmt.Errorf("look at resolver configuration: %w", err)
		}
		// What we put in the link's place shall be as readable as a
		// resolv.conf is, not as a link is.
		o.Perm, o.UID, o.GID = 0o644, os.Geteuid(), os.Getegid()
	}
	o.Content, err = os.ReadFile(path)
	if err != nil && !(o.Kind == kindSymlink && errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	return o, nil
}

// place says how a file came to its content.
type place uint8

const (
	replaced place = iota // by a new file in its place, as one step
	inPlace               // by writing into the file, or the one it links to
)

// writeFile gives path new content. As one step where that is possible, so
// that no reader ever finds half a file; where the file is a mount point
// (containers) or its folder is read-only, into the file itself.
func writeFile(path string, content []byte, like *original) (place, error) {
	perm := like.Perm
	if like.Kind == kindAbsent || perm == 0 {
		perm = 0o644
	}
	err := replaceFile(path, content, perm, like)
	if err == nil {
		return replaced, nil
	}
	if !sealed(err) {
		return 0, fmt.Errorf("replace %s: %w", path, err)
	}
	if err := overwrite(path, content); err != nil {
		return 0, fmt.Errorf("overwrite %s: %w", path, err)
	}
	return inPlace, nil
}

// sealed says whether the folder entry cannot be changed while the file might.
func sealed(err error) bool {
	for _, e := range []error{unix.EBUSY, unix.EXDEV, unix.EROFS, unix.EACCES, unix.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func replaceFile(path string, content []byte, perm fs.FileMode, like *original) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".podnet-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	// The umask of whoever runs us must not make the file unreadable.
	err = errors.Join(err, f.Chmod(perm), chown(f, like), copyLabel(path, f.Name()), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if like.ModTime != 0 {
		t := time.Unix(0, like.ModTime)
		if err := os.Chtimes(f.Name(), t, t); err != nil {
			return err
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func chown(f *os.File, like *original) error {
	if like.UID == os.Geteuid() && like.GID == os.Getegid() {
		return nil
	}
	return f.Chown(like.UID, like.GID)
}

// copyLabel keeps SELinux content: a new file gets the folder's label, which
// other services may not read.
func copyLabel(from, to string) error {
	const name = "security.selinux"
	label := make([]byte, 256)
	n, err := unix.Getxattr(from, name, label)
	if err != nil {
		return nil // no label to keep
	}
	err = unix.Setxattr(to, name, label[:n], 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// overwrite writes first and cuts then: in between, a reader finds our lines
// with some old ones behind, never an empty file.
func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// restore puts o back at path, if what is there is ours. A file that somebody
// else has written since is newer than o and stays.
func restore(path string, o *original) error {
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !isOurs(now)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", path, err)
	}
	switch o.Kind {
	case kindSymlink:
		err = restoreLink(path, o)
	case kindAbsent:
		if err = os.Remove(path); err == nil {
			err = syncDir(filepath.Dir(path))
		}
	default:
		_, err = writeFile(path, o.Content, o)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", path, err)
	}
	return nil
}

func restoreLink(path string, o *original) error {
	if target, err := os.Readlink(path); err == nil && target == o.Target {
		// The link never went, so our lines are in the file it points at.
		return overwrite(path, o.Content)
	}
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.podnet-%d", filepath.Base(path), os.Getpid()))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(o.Target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // some file systems have nothing to sync
	}
	return errors.Join(err, d.Close())
}
