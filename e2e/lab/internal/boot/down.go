package boot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/report"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Down ends whatever there is of a lab, whole or half dead, and leaves nothing:
// no process, control group, namespace, mount or file. Without a lab it does
// nothing. It ends only what is the lab's: processes by their records, by
// living in the lab's network or mount namespaces, or by the pods' control
// groups.
func Down(ctx context.Context, dir state.Dir, r *report.Report) error {
	namespaces, err := netns.List(topology.Prefix)
	if err != nil {
		return err
	}
	if len(namespaces) == 0 && !exists(string(dir)) && len(processesMounting(string(dir))) == 0 {
		return nil
	}
	return r.Step("took the lab down", func() error { return remove(ctx, dir, namespaces, podsCgroup) })
}

// remove is Down for what has this folder, these network namespaces and its pods in
// this control group.
func remove(ctx context.Context, dir state.Dir, namespaces []string, cgroup string) error {
	if err := endProcesses(ctx, dir, namespaces, cgroup); err != nil {
		return err
	}
	if err := eventually(ctx, 5*time.Second, func() error { return removeCgroups(cgroup) }); err != nil {
		return err
	}
	if err := netns.Delete(ctx, namespaces...); err != nil {
		return err
	}
	if err := unmountBelow(string(dir)); err != nil {
		return err
	}
	return os.RemoveAll(string(dir))
}

// podsCgroup is above every node's kube.CgroupRoot.
const podsCgroup = "podnet-lab"

// endProcesses asks the recorded ones to end, all at once, and kills whatever
// else is left.
func endProcesses(ctx context.Context, dir state.Dir, namespaces []string, cgroup string) error {
	all, err := dir.Procs().All()
	if err != nil {
		return err
	}
	for _, p := range all {
		if strings.HasPrefix(p.Name, "kubelet") || p.Name == "controller-manager" {
			_ = p.Signal(syscall.SIGKILL) // they would tidy up what is to vanish
			continue
		}
		_ = p.Signal(syscall.SIGTERM)
	}
	_ = eventually(ctx, 2*time.Second, func() error {
		for _, p := range all {
			if p.Alive() && !strings.HasPrefix(p.Name, "machine-") {
				return fmt.Errorf("%s still runs", p.Name)
			}
		}
		return nil
	})
	inodes := namespaceInodes(namespaces)
	return eventually(ctx, 10*time.Second, func() error {
		left := slices.Concat(cgroupProcesses(cgroup), processesIn(inodes), processesMounting(string(dir)))
		for _, p := range all {
			if p.Alive() {
				left = append(left, p.PID)
			}
		}
		left = slices.DeleteFunc(left, func(pid int) bool { return pid == os.Getpid() })
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("processes %v still run", left)
		}
		return nil
	})
}

// namespaceInodes are the inodes of named network namespaces, by which a
// process's namespace is known.
func namespaceInodes(names []string) map[uint64]bool {
	inodes := map[uint64]bool{}
	var own unix.Stat_t
	if unix.Stat("/proc/self/ns/net", &own) != nil {
		return nil
	}
	for _, name := range names {
		var st unix.Stat_t
		// A name without its mount is an ordinary file on another device.
		if err := unix.Stat(netns.Path(name), &st); err == nil && st.Dev == own.Dev && st.Ino != own.Ino {
			inodes[st.Ino] = true
		}
	}
	return inodes
}

// processesIn are the processes in those network namespaces, zombies aside.
func processesIn(inodes map[uint64]bool) []int {
	var pids []int
	if len(inodes) == 0 {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && inodes[st.Ino] {
			if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
