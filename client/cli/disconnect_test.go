package cli_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
)

// TestDaemonKilledWhileDisconnecting says what became of the session, and what there is
// to do.
func TestDaemonKilledWhileDisconnecting(t *testing.T) {
	m := fakemachine.New(t)
	killed(t, m, func() {})
	m.Podnet("disconnect").Want(t, exit.Daemon, "the daemon ended before it had answered, and its sessions with it", "this machine is not connected any more",
		"nothing is left to do here", "when the lease ends", "podnet logs")
	if m.Cleaned != 1 {
		t.Errorf("cleaned %d times", m.Cleaned)
	}
	m.Podnet("status").Want(t, exit.NotConnected)
}

// TestDaemonRestartedWhileDisconnecting is where a service manager brings it back.
func TestDaemonRestartedWhileDisconnecting(t *testing.T) {
	m := fakemachine.New(t)
	killed(t, m, func() {
		if err := m.StartDaemon(t.Context(), m.Socket); err != nil {
			t.Error(err)
		}
	})
	m.Podnet("disconnect").Want(t, exit.Daemon, "another one has started", "podnet status says what is connected")
	if m.Cleaned != 0 {
		t.Error("what is another daemon's was cleaned up")
	}
}

// killed has a daemon hear one call, end without an answer, and then happen.
func killed(t *testing.T, m *fakemachine.Machine, then func()) {
	if err := os.MkdirAll(filepath.Dir(m.Socket), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", m.Socket)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 4096))
		_ = ln.Close()
		then()
		_ = c.Close()
	}()
	t.Cleanup(func() { _ = ln.Close(); <-over })
}
