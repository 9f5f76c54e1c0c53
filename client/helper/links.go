package helper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// linksName is the file in the state folder that names the interfaces of this
// host's sessions. A name is there before its interface is. The kernel takes a TUN
// with its last file descriptor, and whoever was given one might keep it; a WireGuard
// device of its own it takes with nobody. Then the note is what the next podnet, or
// the guard, goes by.
const linksName = "links.json"

// noteLink adds a name to the note.
func noteLink(dir, name string) error {
	names, err := notedLinks(dir)
	if err != nil || slices.Contains(names, name) {
		return err
	}
	b, err := json.Marshal(append(names, name))
	if err != nil {
		return err
	}
	path := filepath.Join(dir, linksName)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("note interface %s: %w", name, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("note interface %s: %w", name, err)
	}
	return nil
}

// notedLinks are the names in the note. One that cannot be read has none.
func notedLinks(dir string) (names []string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, linksName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the note of interfaces: %w", err)
	}
	if json.Unmarshal(b, &names) != nil {
		return nil, nil
	}
	return names, nil
}

// dropLinks removes the interfaces that are noted and still there, and the note.
// Whoever calls it holds the lock, so that there is no session.
func dropLinks(dir string) error {
	names, err := notedLinks(dir)
	for _, name := range names {
		err = errors.Join(err, removeLink(name, 0))
	}
	if err != nil {
		return err
	}
	for _, name := range []string{linksName + ".tmp", linksName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the note of interfaces: %w", err)
		}
	}
	return nil
}
