package localapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	role = "PODNET_TEST_ROLE"
	// Two users of a machine.
	alice, mallory = 64101, 64102
)

// TestMain is also a program of another user.
func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "listen":
		err = listenAs(os.Args[1], os.Args[2])
	case "connect":
		err = connectAs(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// become gives up being root for good.
func become(uid string) error {
	id, err := strconv.Atoi(uid)
	return errors.Join(err, syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

// listenAs prints what the first caller of a socket says, and answers nothing.
func listenAs(uid, socket string) error {
	if err := become(uid); err != nil {
		return err
	}
	syscall.Umask(0)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	said, _ := bytes.NewBuffer(nil).ReadFrom(c)
	fmt.Println("heard", said)
	return c.Close()
}

func connectAs(uid, socket string) error {
	if err := become(uid); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req := ConnectRequest{Kube: Kube{Env: []string{"AWS_SECRET_ACCESS_KEY=hush"}}}
	_, err := NewClient(socket).Connect(ctx, req, func(Event) {})
	return err
}

// TestSomebodyElsesDaemon has another user of the machine be there first, where the
// socket is that the CLI looks for: a request has the caller's whole environment in it.
func TestSomebodyElsesDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be two users")
	}
	for name, c := range map[string]struct {
		listener, caller int
		heard            bool
	}{
		"another user's":     {mallory, alice, false},
		"one's own":          {alice, alice, true},
		"root's":             {0, alice, true},
		"anybody's, to root": {mallory, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "podnet-test-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, c.listener, c.listener)); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(dir, "daemon.sock")
			as := func(what string, uid int) *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), os.Args[0], strconv.Itoa(uid), socket)
				cmd.Env = append(os.Environ(), role+"="+what)
				return cmd
			}
			var heard bytes.Buffer
			l := as("listen", c.listener)
			l.Stdout = &heard
			if err := l.Start(); err != nil {
				t.Fatal(err)
			}
			for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
				if _, err := os.Stat(socket); err == nil {
					break
				}
				if time.Since(begin) > 5*time.Second {
					t.Fatal("nobody listens")
				}
			}
			said, _ := as("connect", c.caller).Output()
			if err := l.Wait(); err != nil {
				t.Fatalf("%v: %s", err, heard.String())
			}
			if got := !strings.Contains(heard.String(), "heard 0\n"); got != c.heard {
				t.Errorf("it %sthat is heard %v, and the caller says %q", heard.String(), got, said)
			}
			if refused := strings.Contains(string(said), "somebody else"); refused == c.heard {
				t.Errorf("the caller says %q", said)
			}
		})
	}
}
