//go:build unix

package localapi

import (
	"net"
	"os"
	"syscall"

	"podnet.dev/internal/peercred"
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

// isOurs says whether the daemon behind a connection is our own user's, or root's. Where
// the socket's folder is in one that everybody may write to, somebody else may have been
// there first; root looks in no such folder.
func isOurs(c net.Conn) bool {
	who, err := peercred.Of(c)
	return err == nil && (who.UID == os.Geteuid() || who.UID == 0 || os.Geteuid() == 0)
}
