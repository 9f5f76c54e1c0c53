package boot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies are the roots of the control group trees: one in version 2, one
// per controller in version 1.
func hierarchies() []string {
	if exists(filepath.Join(cgroupMount, "cgroup.controllers")) {
		return []string{cgroupMount}
	}
	all, _ := filepath.Glob(filepath.Join(cgroupMount, "*", "cgroup.procs"))
	for i := range all {
		all[i] = filepath.Dir(all[i])
	}
	return all
}

// makeCgroups makes a control group in every hierarchy. The kubelet wants its
// root to exist.
func makeCgroups(name string) error {
	for _, root := range hierarchies() {
		dir := root
		for _, part := range strings.Split(strings.Trim(name, "/"), "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			// A new version 1 cpuset is empty, and nothing could run in it.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				content, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil || len(strings.TrimSpace(string(content))) == 0 {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), content, 0); err != nil {
					return err
				}
			}
			enableControllers(parent)
		}
	}
	return nil
}

// enableControllers hands a version 2 group's controllers down to its children,
// each by itself: one that cannot be is not needed.
func enableControllers(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range strings.Fields(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// cgroupProcesses are the processes in the groups below name.
func cgroupProcesses(name string) []int {
	seen := map[int]bool{}
	var pids []int
	for _, root := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil // a group that vanished has no processes
			}
			content, _ := os.ReadFile(path)
			for _, line := range strings.Fields(string(content)) {
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// removeCgroups removes the groups below name, deepest first.
func removeCgroups(name string) error {
	var errs []error
	for _, root := range hierarchies() {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
