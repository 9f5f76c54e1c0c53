//go:build unix

package resident

import (
	"time"

	"golang.org/x/sys/unix"
)

// computed is the processor time that this process has had.
func computed() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
