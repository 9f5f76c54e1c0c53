//go:build unix && !linux

package nocore

import (
	"os"

	"golang.org/x/sys/unix"
)

// forbid sets the limit of what a core may have to 0, for what this process starts as
// well; that may raise it again, as it could before.
func forbid() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	l.Cur = 0
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_CORE, &l))
}
