//go:build unix

package session

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// alive says whether there is a process pid that still runs. A dead one that
// nobody has buried yet does not count; only /proc tells it apart.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err) || !exists("/proc/self/stat")
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return len(after) == 0 || after[0] != 'Z' && after[0] != 'X'
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
