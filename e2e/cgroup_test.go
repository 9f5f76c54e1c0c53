//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// memoryGroup is the control group that counts a container's memory, as files of
// either version: what is used, its limit, and what befell it.
type memoryGroup struct{ used, limit, events, unlimited string }

// memoryOf is the group that a process is in.
func memoryOf(t testing.TB, pid string) memoryGroup {
	t.Helper()
	const root = "/sys/fs/cgroup"
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]string{} // by controller, "" is version 2's
	for line := range strings.Lines(string(text)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			groups[f[1]] = f[2]
		}
	}
	if group, ok := groups["memory"]; ok {
		dir := filepath.Join(root, "memory", group)
		return memoryGroup{dir + "/memory.usage_in_bytes", dir + "/memory.limit_in_bytes", dir + "/memory.oom_control", "-1"}
	}
	dir := filepath.Join(root, groups[""])
	// A pod is told of what befalls its containers, and outlives them.
	return memoryGroup{dir + "/memory.current", dir + "/memory.max", filepath.Dir(dir) + "/memory.events", "max"}
}

// killed is how many processes the kernel has killed for memory.
func (g memoryGroup) killed(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(g.events)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return number(strings.TrimSpace(n))
		}
	}
	t.Fatalf("%s does not tell of it:\n%s", g.events, text)
	return 0
}

// squeeze makes what is used the limit, down to what cannot be done without: a lower
// limit is refused by version 1, after it has freed what it could, and kills in version 2.
// A group that is gone has none.
func (g memoryGroup) squeeze() {
	for _, share := range []int{2, 1} {
		text, _ := os.ReadFile(g.used)
		if used, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			g.set(strconv.Itoa(used / share))
		}
	}
}

// release takes the limit away.
func (g memoryGroup) release() { g.set(g.unlimited) }

func (g memoryGroup) set(limit string) { _ = os.WriteFile(g.limit, []byte(limit), 0) }
