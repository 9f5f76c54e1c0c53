package cli

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"podnet.dev/client/cli/exit"
)

// TestDaemonKilledWhileDisconnecting says what became of the session, and what there is
// to do.
func TestDaemonKilledWhileDisconnecting(t *testing.T) {
	m := newMachine(t)
	m.killed(t, func() {})
	m.podnet("disconnect").want(t, exit.Daemon, "the daemon ended before it had answered, and its sessions with it", "this machine is not connected any more",
		"nothing is left to do here", "when the lease ends", "podnet logs")
	if m.cleaned != 1 {
		t.Errorf("cleaned %d times", m.cleaned)
	}
	m.podnet("status").want(t, exit.NotConnected)
}

// TestDaemonRestartedWhileDisconnecting is where a service manager brings it back.
func TestDaemonRestartedWhileDisconnecting(t *testing.T) {
	m := newMachine(t)
	m.killed(t, func() {
		if err := m.startDaemon(t.Context(), m.socket); err != nil {
			t.Error(err)
		}
	})
	m.podnet("disconnect").want(t, exit.Daemon, "another one has started", "podnet status says what is connected")
	if m.cleaned != 0 {
		t.Error("what is another daemon's was cleaned up")
	}
}

// killed has a daemon hear one call, end without an answer, and then happen.
func (m *machine) killed(t *testing.T, then func()) {
	if err := os.MkdirAll(filepath.Dir(m.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", m.socket)
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
