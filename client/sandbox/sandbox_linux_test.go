package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/testpod"
	"podnet.dev/internal/testseccomp"
)

// TestMain lets the test binary be the agent, and a program that says what it sees.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			if err := Agent(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "get":
			get(os.Args[2])
			os.Exit(0)
		case "trap":
			trap()
		case "terminal":
			os.Exit(atTerminal())
		case "confined":
			fmt.Println(testseccomp.Exec("/proc/self/exe", []string{"sandbox.test", "try"}, os.Environ()))
			os.Exit(1)
		case "try":
			try()
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// get says what answers at a URL.
func get(url string) {
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	fmt.Print(string(b))
}

// trap waits for SIGUSR1 and ends with 42.
func trap() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	fmt.Println("waiting")
	<-told
	os.Exit(42)
}

// atTerminal is podnet at a terminal: it runs a command that waits to be interrupted.
func atTerminal() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT) // which the command heeds
	s, err := Open(context.Background(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	if err != nil {
		fmt.Println("none:", err)
		return 1
	}
	defer s.Close()
	const script = `test -t 0 && echo at a terminal; trap 'exit 9' INT; read line; echo "got $line"; while :; do sleep 0.05; done`
	e, err := s.Run(context.Background(), Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Dir: "/", Foreground: true,
		Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}, nil)
	fmt.Printf("exit status %d, %v\n", e.Status(), err)
	return 0
}

// try says what keeps a program from having a sandbox.
func try() {
	s, err := Open(context.Background(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	var b *BlockedError
	switch {
	case errors.As(err, &b):
		fmt.Printf("blocked: %v (%s)\n", err, b.Hint())
	case err != nil:
		fmt.Println("failed:", err)
	default:
		fmt.Println("there is one", s.Close())
	}
}

// openTest opens a sandbox, or skips the test where there is none for anybody.
func openTest(t *testing.T, o Options) *Sandbox {
	t.Helper()
	o.Agent = []string{"/proc/self/exe", "agent"}
	s, err := Open(t.Context(), o)
	var b *BlockedError
	if errors.As(err, &b) {
		t.Skipf("no sandbox on this machine: %v (%s)", err, b.Hint())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// said runs a command inside and returns what it wrote, and how it ended.
func said(t *testing.T, s *Sandbox, args ...string) (string, Exit) {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Skipf("needs %s", args[0])
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		_ = r.Close()
		text <- string(b)
	}()
	e, err := s.Run(t.Context(), Command{Path: path, Args: args, Env: os.Environ(), Dir: "/", Files: [3]*os.File{null, w, w}}, nil)
	_ = w.Close()
	out := <-text
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out, e
}

func shell(t *testing.T, s *Sandbox, script string) (string, Exit) {
	t.Helper()
	return said(t, s, "sh", "-c", script)
}

// TestAgentDiesWithItsParent, which had no time for a word.
func TestAgentDiesWithItsParent(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		agent := s.cmd.Process.Pid
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		done := make(chan error, 1)
		go func() {
			_, err := s.Run(context.Background(), Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: [3]*os.File{null, null, null}}, nil)
			done <- err
		}()
		var command []int
		for end := time.Now().Add(5 * time.Second); len(command) == 0; command = children(agent) {
			if time.Now().After(end) {
				t.Fatal("the command does not start")
			}
		}
		if err := unix.Kill(agent, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, errGone) {
			t.Errorf("%v", err)
		}
		for end := time.Now().Add(5 * time.Second); unix.Kill(command[0], 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the command outlives its agent")
			}
		}
	})
}
