//go:build unix

package cli

import "syscall"

// alive says whether there is a process pid that is not a zombie's shell: a
// signal 0 reaches zombies, but those of a detached daemon have init to bury
// them.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
