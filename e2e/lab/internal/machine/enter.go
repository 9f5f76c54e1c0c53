package machine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"podnet.dev/e2e/lab/internal/netns"
)

// Place is where a program runs: a network namespace, and the mount and host
// name namespaces of a process.
type Place struct {
	NS     string // name of the network namespace; empty: stay
	Holder int    // process whose namespaces to join; 0: stay
}

// Credential is a Unix user.
type Credential struct{ UID, GID int }

// Exec turns this process into argv in that place, so that exit code, signals
// and terminal are argv's own. It returns only if it failed.
func Exec(p Place, as *Credential, env, argv []string) error {
	// Namespaces belong to threads. execve makes the calling thread the whole
	// process, and it keeps its own.
	runtime.LockOSThread()
	cwd, _ := os.Getwd()
	if p.NS != "" {
		if err := join(netns.Path(p.NS), unix.CLONE_NEWNET); err != nil {
			return err
		}
	}
	if p.Holder != 0 {
		// A thread that shares its working directory with others may not
		// change its mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the working directory: %w", err)
		}
		for file, kind := range map[string]int{"uts": unix.CLONE_NEWUTS, "mnt": unix.CLONE_NEWNS} {
			if err := join(fmt.Sprintf("/proc/%d/ns/%s", p.Holder, file), kind); err != nil {
				return err
			}
		}
		// setns has put us at the root; the same folder is usually there too.
		if err := unix.Chdir(cwd); err != nil {
			_ = unix.Chdir("/")
		}
	}
	if as != nil {
		if err := become(*as); err != nil {
			return err
		}
	}
	os.Clearenv()
	for _, kv := range env {
		for i := range kv {
			if kv[i] == '=' {
				_ = os.Setenv(kv[:i], kv[i+1:])
				break
			}
		}
	}
	program, err := exec.LookPath(argv[0]) // in the machine's PATH and mounts
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", program, unix.Exec(program, argv, os.Environ()))
}

func join(file string, kind int) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", file, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", file, err)
	}
	return nil
}

// become changes the user of this thread alone, which is all that is left
// after the execve that follows.
func become(c Credential) error {
	for _, call := range []struct {
		what string
		trap uintptr
		arg  uintptr
	}{
		{"drop groups", unix.SYS_SETGROUPS, 0},
		{"set group", unix.SYS_SETGID, uintptr(c.GID)},
		{"set user", unix.SYS_SETUID, uintptr(c.UID)},
	} {
		if _, _, errno := unix.RawSyscall(call.trap, call.arg, 0, 0); errno != 0 {
			return fmt.Errorf("%s: %w", call.what, errno)
		}
	}
	return nil
}
