//go:build unix

// Podnet-helper is the half of podnet that may change this machine's network. It
// sees no kubeconfig and no packet, and of keys that of a device of the kernel's
// WireGuard only; the user's own podnet does the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/serve"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/router"
	"podnet.dev/internal/nocore"
	"podnet.dev/internal/version"
)

const usage = `podnet-helper changes this machine's network for podnet.

  podnet-helper serve      answer on the socket, or on the one that systemd gives
  podnet-helper cleanup    take back what a killed one has left
  podnet-helper version    say which version this is

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("podnet-helper", flag.ContinueOnError)
	socket := flags.String("socket", wire.Socket(), "unix socket to answer on")
	operators := flags.String("config", "/etc/podnet/helper.yaml", "file that says who may have sessions beside root")
	state := flags.String("state", helper.StateDir("/var/lib/podnet"), "folder for the notes of what to take back")
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage); flags.PrintDefaults() }
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments, not %q", verb, flags.Arg(0))
	}
	switch verb {
	case "serve":
		return answer(ctx, *socket, *operators, *state)
	case "cleanup":
		return helper.Cleanup(ctx, *state)
	case "guard":
		return helper.Guard(*state, os.Stdin)
	case "version":
		fmt.Println("podnet-helper", version.Version)
		return nil
	}
	flags.Usage()
	return flag.ErrHelp
}

func answer(ctx context.Context, socket, operators, state string) error {
	if os.Geteuid() != 0 {
		return errors.New("podnet-helper serves as root: sudo podnet setup installs it")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := nocore.Forbid(); err != nil {
		log.Warn("a crash may leave a core with keys in it", "err", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// Before anybody is served: a killed one may have left something.
	if err := helper.Cleanup(ctx, state); err != nil {
		log.Error("what a killed podnet has left is not all taken back", "err", err)
	}
	l, err := listener(socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	host := helper.NewHost(helper.Options{StateDir: state, Guard: []string{exe, "guard", "-state", state}, Log: log})
	s := serve.Server{
		Open: host.Open, Log: log,
		Operators: func() (serve.Operators, error) { return serve.ReadOperators(operators) },
		Networks: func() ([]router.Network, error) {
			have, err := router.Read()
			return have.Networks(router.Ours), err
		},
	}
	log.Info("podnet-helper serves", "socket", l.Addr(), "version", version.Version)
	return s.Serve(ctx, l)
}

// firstPassed is the descriptor of the socket that systemd passes, see
// sd_listen_fds(3).
const firstPassed = 3

// listener is the socket that systemd has made, or one of our own.
func listener(path string) (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		return serve.Listen(path)
	}
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("systemd passes %s sockets, want 1", n)
	}
	f := os.NewFile(firstPassed, "from systemd")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("systemd passes a socket of %s, want unix", l.Addr().Network()), l.Close())
	}
	return ul, nil
}
