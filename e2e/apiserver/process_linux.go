package apiserver

import (
	"sync"
	"syscall"
	"testing"
)

// dieWithParent keeps a killed test from leaving its servers behind.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// Freeze makes the API server silent: connections stay, and nothing answers.
// thaw, which may be called twice, ends that.
func (s *Server) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	if err := s.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() {
		if err := s.process.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	return thaw
}
