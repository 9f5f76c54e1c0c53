// Package netns makes named network namespaces and does things inside them.
// It knows no addresses and no machines.
package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is where ip(8) keeps names of namespaces.
const dir = "/run/netns"

// Path is the file that holds the namespace of that name.
func Path(name string) string { return filepath.Join(dir, name) }

// Add makes namespaces.
func Add(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := run(exec.CommandContext(ctx, "ip", "netns", "add", name)); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes namespaces; one that is not there is no error. A namespace
// lives on, nameless, while a process is in it.
func Delete(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := os.Lstat(Path(name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := run(exec.CommandContext(ctx, "ip", "netns", "delete", name)); err != nil {
			// The name of a namespace whose mount is gone, as after a reboot.
			if err := os.Remove(Path(name)); err != nil {
				errs = append(errs, fmt.Errorf("delete network namespace %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// List names the namespaces that begin with prefix.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Do calls f on a thread that is in the namespace. What f starts is in it too.
func Do(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other
		// code ever runs on a thread that is in the wrong namespace.
		runtime.LockOSThread()
		done <- func() error {
			fd, err := unix.Open(Path(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open network namespace %s: %w", name, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", name, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Run runs a command inside, with input on stdin, and gives its stdout.
func Run(ctx context.Context, name, input string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := Do(name, func() error { return run(cmd) })
	return out.String(), err
}

// Batch feeds lines to "ip -batch" inside.
func Batch(ctx context.Context, name string, lines []string) error {
	cmd := exec.CommandContext(ctx, "ip", "-n", name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if err := run(cmd); err != nil {
		return fmt.Errorf("in %s: %w", name, err)
	}
	return nil
}

// Sysctl writes settings below /proc/sys/net inside; keys are like
// "ipv4/ip_forward". A setting this kernel lacks is passed over.
func Sysctl(name string, settings map[string]string) error {
	return Do(name, func() error {
		for key, value := range settings {
			err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("set %s in %s: %w", key, name, err)
			}
		}
		return nil
	})
}

func run(cmd *exec.Cmd) error {
	var talk bytes.Buffer
	cmd.Stderr = &talk
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(talk.String()))
	}
	return nil
}
