package localapi

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// SocketName is the daemon's socket in its runtime folder.
const SocketName = "daemon.sock"

// RuntimeDir is the folder of the daemon's socket and lock: the XDG one where
// there is one of our own, else /run/podnet-UID, else one in the temporary
// folder. Client and daemon come to the same answer; MakePrivateDir makes it.
func RuntimeDir() string {
	return runtimeDir(os.Getenv("XDG_RUNTIME_DIR"), "/run", os.TempDir(), os.Geteuid())
}

func runtimeDir(xdg, run, tmp string, uid int) string {
	// sudo -E brings somebody else's; what we put there would be theirs to replace.
	if xdg != "" && OwnedBy(xdg, uid) {
		return filepath.Join(xdg, "podnet")
	}
	name := "podnet-" + strconv.Itoa(uid)
	if dir := filepath.Join(run, name); uid == 0 || OwnedBy(dir, uid) {
		return dir
	}
	return filepath.Join(tmp, name)
}

// StateDir is the folder for the daemon's log and for what must outlive it.
// Root never writes into the home of another user.
func StateDir() string {
	return stateDir(os.Getenv("XDG_STATE_HOME"), os.Getenv("HOME"), RuntimeDir(), os.Geteuid())
}

func stateDir(xdg, home, fallback string, uid int) string {
	if filepath.IsAbs(xdg) && OwnedBy(existing(xdg), uid) {
		return filepath.Join(xdg, "podnet")
	}
	if dir := filepath.Join(home, ".local/state"); filepath.IsAbs(home) && OwnedBy(existing(dir), uid) {
		return filepath.Join(dir, "podnet")
	}
	return fallback
}

// existing is path or its nearest parent that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// MakePrivateDir makes dir, and its parents, for our eyes only. One that is
// already there must be ours, a real folder, and closed to everybody else:
// somebody who could write to it could put their own socket in our way.
func MakePrivateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case !OwnedBy(dir, os.Geteuid()):
		return fmt.Errorf("%s belongs to somebody else", dir)
	case info.Mode().Perm()&0o077 != 0:
		return os.Chmod(dir, 0o700)
	}
	return nil
}
