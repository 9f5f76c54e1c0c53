package outbound

import (
	"os"
	"os/exec"
)

// ownGroup does nothing: a console tells all its processes.
func ownGroup(*exec.Cmd) {}

// sendSignal ends the command: Windows knows no other signal.
func sendSignal(cmd *exec.Cmd, _ os.Signal, _ bool) error { return cmd.Process.Kill() }

func statusOf(s *os.ProcessState) int { return s.ExitCode() }
