package nocore

import (
	"os"

	"golang.org/x/sys/unix"
)

// forbid takes away the dumpable attribute of prctl(2), rather than set a limit of 0:
// RLIMIT_CORE would be every command's that this process starts, and does not count
// where the kernel hands cores to a program, as most distributions have it (core(5)). The
// attribute is of this process alone, as execve gives it back. It also keeps other
// programs of the same user from reading the memory (ptrace(2)), and has root own the
// process's files in /proc: a user namespace for a child, whose uid_map is such a file,
// has to be made before.
func forbid() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
