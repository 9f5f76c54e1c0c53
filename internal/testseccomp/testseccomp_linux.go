// Package testseccomp confines a program as container runtimes do by default: no
// namespaces, no mounts. What is refused is what Docker's and containerd's profiles
// refuse to a container without CAP_SYS_ADMIN,
// https://docs.docker.com/engine/security/seccomp/.
package testseccomp

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespaces are the flags of clone(2) that make one.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// filter is the program that the kernel runs at each system call. It takes the
// architecture for granted: it is there to refuse what we do, not what an enemy does.
func filter() []unix.SockFilter {
	const number, firstArgument = 0, 16 // of struct seccomp_data, on a little-endian machine
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	answer := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	refuse := func(with unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(with)) }
	skipUnless := func(test uint16, k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jf: skip}
	}
	p := []unix.SockFilter{load(number)}
	// The flags of clone3 are in memory, where no filter sees them: there is none, so
	// that programs take clone.
	p = append(p, skipUnless(unix.BPF_JEQ, unix.SYS_CLONE3, 1), refuse(unix.ENOSYS))
	for _, nr := range []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT} {
		p = append(p, skipUnless(unix.BPF_JEQ, nr, 1), refuse(unix.EPERM))
	}
	return append(p, skipUnless(unix.BPF_JEQ, unix.SYS_CLONE, 3),
		load(firstArgument), skipUnless(unix.BPF_JSET, namespaces, 1), refuse(unix.EPERM),
		answer(unix.SECCOMP_RET_ALLOW))
}

// Exec turns this process into a confined program. It returns only if it failed.
func Exec(path string, args, env []string) error {
	runtime.LockOSThread() // the filter is this thread's, which execve makes the process
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	program := filter()
	load := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&load))); errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, args, env))
}
