package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoint is a line of proc_pid_mountinfo(5).
type mountPoint struct {
	device string // major:minor
	root   string // what of the device is mounted
	target string
}

func parseMounts(s string) []mountPoint {
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var ms []mountPoint
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) >= 5 {
			ms = append(ms, mountPoint{f[2], plain.Replace(f[3]), plain.Replace(f[4])})
		}
	}
	return ms
}

// within says whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// origin says where a folder is on its device: the form in which other mount
// namespaces name it.
func origin(mounts []mountPoint, dir string) (device, path string) {
	best := mountPoint{}
	for _, m := range mounts { // a later mount hides an earlier one
		if within(dir, m.target) && len(m.target) >= len(best.target) {
			best = m
		}
	}
	rel, err := filepath.Rel(best.target, dir)
	if err != nil {
		return "", ""
	}
	return best.device, filepath.Join(best.root, rel)
}

// processesMounting are the processes in mount namespaces into which a part of
// dir is mounted: those of the lab's machines, and its containers. So they are
// found even when the holders of these namespaces are gone. Processes in the
// mount namespace of this one are not meant.
func processesMounting(dir string) []int {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	device, path := origin(parseMounts(string(own)), filepath.Join(dir, "machines"))
	if device == "" {
		return nil
	}
	ownNS, _ := os.Readlink("/proc/self/ns/mnt")
	ours := map[string]bool{ownNS: false} // by mount namespace
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, link := range links {
		ns, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if _, known := ours[ns]; !known {
			content, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "mountinfo"))
			if err != nil {
				continue
			}
			ours[ns] = slices.ContainsFunc(parseMounts(string(content)), func(m mountPoint) bool {
				return m.device == device && within(m.root, path)
			})
		}
		if ours[ns] {
			if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// unmountBelow undoes mounts that a lab made outside of its machines'
// namespaces, the latest first. There should be none.
func unmountBelow(dir string) error {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	mounts := parseMounts(string(content))
	slices.Reverse(mounts)
	var errs []error
	for _, m := range mounts {
		if m.target == dir || !within(m.target, dir) { // a mount at dir itself is the user's
			continue
		}
		if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.target, err))
		}
	}
	return errors.Join(errs...)
}
