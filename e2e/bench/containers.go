package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// above are the cgroups above those of a pod's containers as a kubelet makes them: of
// what is below kubepods, a pod without requests has the least share there is.
//
// They are not for nothing: whenever one container's process wakes another's, the
// kernel weighs their cgroups level by level.
var above = []struct {
	name  string
	least bool
}{{"podnet-bench", false}, {"kubepods", false}, {"besteffort", true}, {"pod", true}}

// containers are the cgroups of a pod's containers, those above them first.
type containers struct {
	root string
	dirs []string
}

// contain puts processes into cgroups as if each were a container of one pod.
func contain(processes ...process) (c containers, err error) {
	c.root = "/sys/fs/cgroup/cpu" // version 1
	share, least := "cpu.shares", "2"
	_, err = os.Stat("/sys/fs/cgroup/cgroup.controllers")
	v2 := err == nil
	if v2 {
		c.root, share, least = "/sys/fs/cgroup", "cpu.weight", "1"
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.release())
		}
	}()
	add := func(dir string, isLeast bool) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		c.dirs = append(c.dirs, dir)
		if isLeast {
			return os.WriteFile(filepath.Join(dir, share), []byte(least), 0)
		}
		return nil
	}
	pod := c.root
	for _, s := range above {
		if v2 { // what is below has shares only if what is above says so
			if err := os.WriteFile(filepath.Join(pod, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
				return c, err
			}
		}
		pod = filepath.Join(pod, s.name)
		if err := add(pod, s.least); err != nil {
			return c, err
		}
	}
	for _, p := range processes {
		dir := filepath.Join(pod, p.name)
		if err := add(dir, true); err != nil {
			return c, err
		}
		if err := move(p.id, dir); err != nil {
			return c, err
		}
	}
	return c, nil
}

func move(id int, dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, id), 0)
}

// release moves what is in the cgroups back to the root's, and removes them.
func (c containers) release() error {
	var failed error
	for _, dir := range slices.Backward(c.dirs) {
		ids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		failed = errors.Join(failed, err)
		for field := range strings.FieldsSeq(string(ids)) {
			id, err := strconv.Atoi(field)
			failed = errors.Join(failed, err, move(id, c.root))
		}
		failed = errors.Join(failed, os.Remove(dir))
	}
	return failed
}
