package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/testpod"
)

// TestKeep: other processes run their commands in a sandbox that one keeps, until it has
// been idle or somebody ends it.
func TestKeep(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		kept := make(chan error, 1)
		go func() { kept <- s.Keep(t.Context(), l, time.Minute) }()
		first, err := Join(path)
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		files := [3]*os.File{null, null, null}
		if e, err := first.Run(t.Context(), Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 7"}, Files: files}, nil); e.Status() != 7 || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := first.Run(t.Context(), Command{Path: "/nonexistent", Args: []string{"x"}, Files: files}, nil); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v", err)
		}
		signals := make(chan os.Signal, 1)
		signals <- unix.SIGTERM
		if e, err := first.Run(t.Context(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: files}, signals); e.Signal != int(unix.SIGTERM) || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		second, err := Join(path)
		if err != nil {
			t.Fatal(err)
		}
		running := make(chan error, 1)
		go func() {
			_, err := second.Run(context.Background(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: files}, nil)
			running <- err
		}()
		for end := time.Now().Add(5 * time.Second); len(children(s.cmd.Process.Pid)) == 0; {
			if time.Now().After(end) {
				t.Fatal("the command does not start")
			}
		}
		_ = second.Close() // as when its process dies
		if err := <-running; !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
		for end := time.Now().Add(5 * time.Second); len(children(s.cmd.Process.Pid)) != 0; {
			if time.Now().After(end) {
				t.Fatal("the command outlives who has run it")
			}
		}
		if err := first.End(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-kept; err != nil {
			t.Error(err)
		}
		_ = first.Close()
		if _, err := Join(path); err == nil {
			t.Error("it is still kept")
		}
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			t.Fatal(err)
		}
		if err := s.Keep(t.Context(), l, time.Millisecond); err != nil {
			t.Error(err)
		}
	})
}
