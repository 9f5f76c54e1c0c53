package helper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// StateDir is the folder below base for the journals of our network namespace:
// base itself for the machine's own, one inside it for those that ip netns and
// its like make on the same file system.
func StateDir(base string) string {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return base
	}
	if first, err := os.Readlink("/proc/1/ns/net"); err != nil || first == own {
		return base
	}
	return filepath.Join(base, fmt.Sprintf("netns-%s", strings.Trim(own, "net:[]")))
}
