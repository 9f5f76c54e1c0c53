package osdns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// journalName is the file in JournalDir. There is one journal per host, as
// there is one resolver.
const journalName = "dns.json"

// journal is the note of what to undo. It is on the disk before the first
// change and goes after the last.
type journal struct {
	Mode string `json:"mode"`
	// Links are those that systemd-resolved or openresolv was told about.
	Links []string `json:"links,omitempty"`
	// Link is the one in a journal from before there could be several.
	Link string `json:"link,omitempty"`
	// Path and Original are the resolv.conf that was replaced.
	Path     string    `json:"path,omitempty"`
	Original *original `json:"original,omitempty"`
}

// original is a resolv.conf as it was.
type original struct {
	Kind    string      `json:"kind"`
	Target  string      `json:"target,omitempty"` // of a symlink, as it is written there
	Content []byte      `json:"content,omitempty"`
	Perm    fs.FileMode `json:"perm,omitempty"`
	UID     int         `json:"uid"`
	GID     int         `json:"gid"`
	ModTime int64       `json:"mtime,omitempty"` // Unix nanoseconds
}

const (
	kindFile    = "file"
	kindSymlink = "symlink"
	kindAbsent  = "absent"
)

// readJournal gives nil where there is none.
func readJournal(dir string) (*journal, error) {
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read dns journal: %w", err)
	}
	return parseJournal(b)
}

func parseJournal(b []byte) (*journal, error) {
	j := new(journal)
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fmt.Errorf("read dns journal: %w", err)
	}
	if j.Link != "" {
		j.Links, j.Link = append(j.Links, j.Link), ""
	}
	switch {
	case (j.Mode == ModeResolved || j.Mode == ModeOpenresolv) && len(j.Links) > 0:
	case j.Mode == ModeDirect && filepath.IsAbs(j.Path) && j.Original != nil && j.Original.valid():
	default:
		return nil, fmt.Errorf("read dns journal: mode %q with parts missing", j.Mode)
	}
	return j, nil
}

func (o *original) valid() bool {
	switch o.Kind {
	case kindFile, kindAbsent:
		return true
	case kindSymlink:
		return o.Target != ""
	}
	return false
}

// writeJournal replaces the journal as one step and does not return before it
// is on the disk.
func writeJournal(dir string, j *journal) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("write dns journal: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write dns journal: %w", err)
	}
	// Always the same second name: whoever is killed here leaves one file that
	// the next one uses again.
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write dns journal: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write dns journal: %w", err)
	}
	return syncDir(dir)
}

func removeJournal(dir string) error {
	gone := true
	for _, name := range []string{journalName + ".tmp", journalName} {
		err := os.Remove(filepath.Join(dir, name))
		if err == nil {
			gone = false
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove dns journal: %w", err)
		}
	}
	if gone {
		return nil
	}
	return syncDir(dir)
}
