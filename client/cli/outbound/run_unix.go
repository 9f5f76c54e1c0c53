//go:build unix

package outbound

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup gives a command a process group of its own.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// sendSignal tells a command, or all of its group.
func sendSignal(cmd *exec.Cmd, sig os.Signal, group bool) error {
	if n, ok := sig.(syscall.Signal); ok && group {
		return syscall.Kill(-cmd.Process.Pid, n)
	}
	return cmd.Process.Signal(sig)
}

// statusOf is the exit status that a shell would give.
func statusOf(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return bySignal + int(ws.Signal())
	}
	return s.ExitCode()
}
