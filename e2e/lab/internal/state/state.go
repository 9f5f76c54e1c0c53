// Package state knows where the lab keeps what it has: the state folder, which
// "lab down" empties, and the cache, which outlives labs and work trees.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"podnet.dev/e2e/lab/internal/proc"
	"podnet.dev/e2e/lab/internal/topology"
)

// Dir is the state folder.
type Dir string

// Default is $PODNET_LAB_STATE or /var/lib/podnet-lab.
func Default() Dir {
	if dir := os.Getenv("PODNET_LAB_STATE"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return Dir(abs)
		}
	}
	return "/var/lib/podnet-lab"
}

// Cluster is the state folder of a further cluster of the lab.
func (d Dir) Cluster(name string) Dir { return Dir(d.Path("clusters", name)) }

// Path is a place below the state folder.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Machine is the folder of a machine.
func (d Dir) Machine(name string) string { return d.Path("machines", name) }

// Home is the home folder of a user on a machine.
func (d Dir) Home(machine, user string) string { return d.Path("machines", machine, "home", user) }

// Log is the log of a component.
func (d Dir) Log(name string) string { return d.Path("log", name+".log") }

// Kubeconfig is the configuration of a user of the cluster.
func (d Dir) Kubeconfig(user string) string { return d.Path("kubeconfig", user+".kubeconfig") }

// Procs is the table of what runs.
func (d Dir) Procs() proc.Table { return proc.Table{Dir: d.Path("run")} }

// Record is what a lab was brought up with.
type Record struct {
	Options topology.Options `json:"options"`
	Assets  string           `json:"assets"` // fingerprint of the programs and images
	Bin     string           `json:"bin"`    // folder of Kubernetes' programs
	Ready   bool             `json:"ready"`  // the boot went through to its end
}

// Load reads the record. It fails where no lab is.
func (d Dir) Load() (Record, topology.Lab, error) {
	var r Record
	content, err := os.ReadFile(d.Path("lab.json"))
	if err != nil {
		return r, topology.Lab{}, fmt.Errorf("it is not up (run \"lab up\", or \"lab cluster up\"): %w", err)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return r, topology.Lab{}, fmt.Errorf("record of the lab: %w", err)
	}
	lab, err := topology.New(r.Options)
	return r, lab, err
}

// ReadJSON reads a file of the state folder; one that is not there changes
// nothing.
func (d Dir) ReadJSON(name string, v any) error {
	content, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("read %s: %w", d.Path(name), err)
	}
	return nil
}

// Save writes the record.
func (d Dir) Save(r Record) error { return d.WriteJSON("lab.json", r) }

// WriteJSON writes a file of the state folder.
func (d Dir) WriteJSON(name string, v any) error {
	content, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	tmp := d.Path(name + ".new")
	if err := os.WriteFile(tmp, append(content, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, d.Path(name))
}

// Lock waits until no other lab command changes this lab, and gives the way to
// let the next one in.
func (d Dir) Lock() (unlock func(), err error) {
	// Not in the folder, which "down" removes.
	name := "/run/" + strings.ReplaceAll(strings.Trim(string(d), "/"), "/", "-") + ".lock"
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// Cache is ${XDG_CACHE_HOME:-~/.cache}/podnet-lab.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "podnet-lab"), nil
}
