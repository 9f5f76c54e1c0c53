//go:build unix

package localapi

import (
	"os"
	"syscall"
)

// OwnedBy says whether a file, or the link that stands there, is a user's.
func OwnedBy(path string, uid int) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}
