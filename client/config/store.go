package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"podnet.dev/client/localapi"
)

// ProjectFile is the name of a project's file, in the folder that a command is given
// in or one above it.
const ProjectFile = ".podnet.yaml"

// SystemFile is the administrator's.
const SystemFile = "/etc/podnet/config.yaml"

// Store is where the files are. Commands and the daemon have one each; who writes
// last is heeded.
type Store struct {
	// User and System are names of files; an empty one is not there.
	User, System string
	// Check knows the flags. nil: any will do.
	Check Check
}

// UserStore is that of this process' user.
func UserStore() Store { return StoreOf(os.Environ()) }

// StoreOf is that of whoever has the environment.
func StoreOf(environ []string) Store {
	return Store{User: userFile(runtime.GOOS, environ), System: SystemFile}
}

// userFile is below the folder that an OS has for configuration; "" without a home.
func userFile(goos string, environ []string) string {
	get := func(name string) string {
		for _, e := range environ {
			if v, ok := strings.CutPrefix(e, name+"="); ok && filepath.IsAbs(v) {
				return v
			}
		}
		return ""
	}
	var dir string
	switch home := get("HOME"); {
	case goos == "windows":
		dir = get("AppData")
	case get("XDG_CONFIG_HOME") != "":
		dir = get("XDG_CONFIG_HOME")
	case home != "" && goos == "darwin":
		dir = filepath.Join(home, "Library", "Application Support")
	case home != "":
		dir = filepath.Join(home, ".config")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "podnet", "config.yaml")
}

// Load is what the user's file and the administrator's say.
func (s Store) Load() (Config, error) { return s.LoadAt("") }

// LoadAt is that, and what the project says that a folder is in.
func (s Store) LoadAt(dir string) (Config, error) {
	var files []*file
	for _, f := range []struct {
		name  string
		whose scope
	}{{Project(dir), project}, {s.User, user}, {s.System, system}} {
		if f.name == "" {
			continue
		}
		raw, err := read(f.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission) && f.whose == user && !localapi.OwnedBy(f.name, os.Geteuid()):
			continue // the home of whoever has called sudo -u
		case err != nil:
			return Config{}, fmt.Errorf("read the configuration: %w", err)
		}
		parsed, err := parse(f.name, raw, f.whose, s.Check)
		if err != nil {
			return Config{}, err
		}
		files = append(files, parsed)
	}
	return merge(files), nil
}

// read reads a little more than there may be.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// Project is the file of the project that a folder is in: the nearest above it. ""
// where there is none, or where it is somebody else's: what lies about in a folder
// that others write to is not for us.
func Project(dir string) string {
	for dir != "" {
		name := filepath.Join(dir, ProjectFile)
		if _, err := os.Stat(name); err == nil {
			if localapi.OwnedBy(name, os.Geteuid()) {
				return name
			}
			return ""
		}
		if filepath.Dir(dir) == dir {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// Set gives a key of the user's file its values: defaults.FLAG, or tray.notify.
func (s Store) Set(key string, values ...string) error {
	return s.edit(func(d *document) error { return d.set(key, values) })
}

// Unset takes a key out of the user's file.
func (s Store) Unset(key string) error {
	return s.edit(func(d *document) error { return d.unset(key) })
}

// Profiles are those of the user and of the machine.
func (s Store) Profiles() ([]localapi.Profile, error) {
	c, err := s.Load()
	var all []localapi.Profile
	for _, p := range c.Profiles {
		all = append(all, p.Profile)
	}
	return all, err
}

// SaveProfile writes a profile into the user's file.
func (s Store) SaveProfile(p localapi.Profile) error {
	return s.edit(func(d *document) error { return d.save(p) })
}

// RemoveProfile takes one out of it.
func (s Store) RemoveProfile(name string) error {
	return s.edit(func(d *document) error { return d.remove(name) })
}

// editing is held by whoever in this process changes a file.
var editing sync.Mutex

// edit changes the user's file, whole or not at all. What would not be read again is
// not written.
func (s Store) edit(change func(*document) error) error {
	editing.Lock()
	defer editing.Unlock()
	if s.User == "" {
		return &localapi.Error{Code: localapi.CodeUsage, Message: "there is no folder for a user's configuration", Hint: "HOME or XDG_CONFIG_HOME names it", Status: http.StatusBadRequest}
	}
	name := s.User
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at // dotfiles that are kept elsewhere stay there
	}
	raw, err := read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the configuration: %w", err)
	}
	_, before := parse(name, raw, user, s.Check)
	d, err := open(name, raw)
	if err != nil {
		return err
	}
	if err := change(d); err != nil {
		return err
	}
	if raw, err = d.bytes(); err != nil {
		return err
	}
	if _, err := parse(name, raw, user, s.Check); err != nil {
		var e *Error
		switch {
		case before != nil:
			return before
		case errors.As(err, &e): // there is no such line yet
			return &localapi.Error{Code: localapi.CodeUsage, Message: e.Text, Hint: e.Hint(), Status: http.StatusBadRequest}
		}
		return err
	}
	return write(name, raw)
}

// write replaces a file, whose folder is the user's.
func write(name string, raw []byte) error {
	dir := filepath.Dir(name)
	there := dir
	for there != filepath.Dir(there) {
		if _, err := os.Stat(there); err == nil {
			break
		}
		there = filepath.Dir(there)
	}
	if !localapi.OwnedBy(there, os.Geteuid()) { // sudo -E
		return &localapi.Error{Code: localapi.CodeUsage, Message: there + " belongs to somebody else", Hint: "change the configuration without sudo", Status: http.StatusBadRequest}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".config-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
