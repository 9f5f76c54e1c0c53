// Package machine makes a network namespace into something that looks like a
// computer of its own: its own /etc, /run, host name and homes, seen by every
// program started there. A small process holds these namespaces open.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Computer is a machine to be held.
type Computer struct {
	State state.Dir
	Lab   topology.Lab
	topology.Machine
	Resolved string // folder with systemd-resolved's files; empty: /etc/resolv.conf alone
}

func (c Computer) dir(elem ...string) string {
	return filepath.Join(append([]string{c.State.Machine(c.Name)}, elem...)...)
}

// Furnish mounts what the computer has of its own. The calling process must
// be in fresh mount and host name namespaces with private propagation, and in
// the machine's network namespace.
func (c Computer) Furnish() error {
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	steps := []func() error{c.ownEtc, ownRun, c.files}
	switch c.Kind {
	case topology.Laptop:
		steps = append(steps, ownSys, c.resolvedFiles, c.ownState)
	case topology.Node:
		steps = append(steps, c.kernelSettings, c.ownLog, c.ownLib, shareMounts)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("furnish %s: %w", c.Name, err)
		}
	}
	return nil
}

// ownEtc lays a writable layer over /etc.
func (c Computer) ownEtc() error { return c.overlay("/etc", "/etc") }

// overlay mounts a writable layer over target, whose content is lower: folders
// joined by colons, the first on top.
func (c Computer) overlay(target, lower string) error {
	name := strings.ReplaceAll(strings.Trim(target, "/"), "/", "-")
	upper, work := c.dir(name), c.dir(name+".work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	return mount("overlay", target, "overlay", 0, options)
}

// ownRun gives an empty /run: no socket of the host's services is in reach.
func ownRun() error {
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	return os.Chmod("/run/lock", 0o1777)
}

// ownSys mounts /sys anew, so that /sys/class/net shows this machine's links.
// Not on nodes: the kubelet needs the control groups that are mounted below.
func ownSys() error {
	groups, err := unix.Open("/sys/fs/cgroup", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if groups < 0 {
		return nil
	}
	defer unix.Close(groups)
	return mount(fmt.Sprintf("/proc/self/fd/%d", groups), "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "")
}

// kernelSettings shows the kubelet the kernel-wide settings it wants, and keeps
// it from changing the real ones of this computer.
func (c Computer) kernelSettings() error {
	for key, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		real, shown := filepath.Join("/proc/sys", key), filepath.Join("/run/kernel", key)
		if _, err := os.Stat(real); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(shown, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(shown, real, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// ownLog puts the node's folder at /var/log: the kubelet's paths for container
// logs cannot all be configured.
func (c Computer) ownLog() error {
	dir := c.dir("log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return mount(dir, "/var/log", "", unix.MS_BIND, "")
}

// ownState gives a laptop its own note of what podnet has changed on it: two
// laptops that shared one would each take the other for themselves.
func (c Computer) ownState() error {
	const podnet = "/var/lib/podnet"
	dir := c.dir("podnet")
	for _, d := range []string{dir, podnet} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return mount(dir, podnet, "", unix.MS_BIND, "")
}

// ownLib puts the node's folder at /var/lib, so that containerd, kubelet and
// the CNI plugins use the paths that every document names. The state folder
// stays where it is.
func (c Computer) ownLib() error {
	dir := c.dir("lib")
	for _, d := range []string{"containerd", "kubelet", "cni"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	rel, err := filepath.Rel("/var/lib", string(c.State))
	inside := err == nil && rel != "." && !strings.HasPrefix(rel, "..")
	fd := -1
	if inside {
		if err := os.MkdirAll(filepath.Join(dir, rel), 0o755); err != nil {
			return err
		}
		if fd, err = unix.Open(string(c.State), unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	if err := mount(dir, "/var/lib", "", unix.MS_BIND, ""); err != nil || !inside {
		return err
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", fd), string(c.State), "", unix.MS_BIND, "")
}

// shareMounts makes this machine's mounts a peer group of their own, as
// kubelet and runc expect of a host.
func shareMounts() error { return mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") }

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s%s on %s: %w", kind, source, target, err)
	}
	return nil
}
