package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// masked are the folders of the sockets by which libraries ask for names past
// resolv.conf: nss-resolve and nscd would answer as outside.
var masked = []string{"/run/systemd/resolve", "/run/nscd", "/var/run/nscd"}

// privateFiles makes /etc/resolv.conf, nsswitch.conf and hosts what they are to be
// inside. It returns the first of them, open.
//
// The files are in a tmpfs that is mounted for the time of making them, over a folder
// that nobody inside has looked into yet; a bind mount of a file outlives it.
func privateFiles(b beginning) (resolv *os.File, err error) {
	_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") // the kernel has done so, unless / is no mount point
	target, err := follow("/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, dir := range masked {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		if err := mountTmpfs(real); err != nil {
			return nil, err
		}
	}
	if err := existing(target); err != nil {
		return nil, err
	}
	files := map[string]string{target: resolvConf(DNS, nil)}
	for path, change := range map[string]func(string) string{"/etc/nsswitch.conf": nsswitch, "/etc/hosts": hostsFile} {
		had, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || path == "/etc/hosts" && b.Isolate {
			continue // without nsswitch.conf the C library does what ours says
		}
		if err != nil {
			return nil, err
		}
		if path, err = follow(path); err != nil {
			return nil, err
		}
		files[path] = change(string(had))
	}
	stage, err := stage()
	if err != nil {
		return nil, err
	}
	if err := mountTmpfs(stage); err != nil {
		return nil, err
	}
	n := 0
	for path, content := range files {
		n++
		source := filepath.Join(stage, fmt.Sprint(n))
		f, err := os.OpenFile(source, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o644)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Chmod(0o644), rewrite(f, []byte(content))); err != nil {
			return nil, err
		}
		if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
			return nil, &os.PathError{Op: "mount", Path: path, Err: err}
		}
		if path == target {
			resolv = f
		} else {
			_ = f.Close()
		}
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return nil, &os.PathError{Op: "unmount", Path: stage, Err: err}
	}
	return resolv, nil
}

// stage is a folder that every machine has, and none of the files is in.
func stage() (string, error) {
	for _, dir := range []string{"/tmp", "/mnt", "/var/tmp"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", errors.New("there is neither /tmp nor /mnt")
}

func mountTmpfs(dir string) error {
	if err := unix.Mount("podnet", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return nil
}

// follow is where a path leads to by symlinks, be it there or not.
func follow(path string) (string, error) {
	for range 16 {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return path, nil // its folder is not there either
		}
		path = filepath.Join(dir, filepath.Base(path))
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// existing makes an empty file where there is none: something can only be mounted on
// what is there. Inside a folder that is masked this is ours to do.
func existing(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
