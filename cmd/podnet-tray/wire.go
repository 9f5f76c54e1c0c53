//go:build !darwin || cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"podnet.dev/client/daemon"
	"podnet.dev/client/localapi"
	"podnet.dev/client/tray"
	"podnet.dev/client/tray/desktop"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/version"
)

const help = `podnet-tray shows in the panel what this machine is connected to, and connects and
disconnects by clicks. It needs a panel that shows status icons: those of KDE,
Xfce, LXQt, MATE and Cinnamon do, GNOME's with the extension AppIndicator. To copy
it needs wl-copy (package wl-clipboard), xclip or xsel.

Quitting it leaves what is connected as it is.

`

// run returns the exit status.
func run(ctx context.Context, args []string) int {
	flags := pflag.NewFlagSet("podnet-tray", pflag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, help, "Flags:\n", flags.FlagUsages()) }
	socket := flags.String("socket", os.Getenv("PODNET_SOCKET"), "unix socket of the daemon (default: in the runtime folder of the user)")
	said := flags.Bool("version", false, "say which version this is")
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return failed(&localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet-tray --help"})
	case flags.NArg() > 0:
		return failed(&localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("podnet-tray takes no arguments, not %q", flags.Arg(0)), Hint: "podnet-tray --help"})
	case *said:
		fmt.Println("podnet-tray", version.Version)
		return 0
	}
	if *socket == "" {
		*socket = filepath.Join(localapi.RuntimeDir(), localapi.SocketName)
	}
	level := slog.LevelWarn
	if os.Getenv("PODNET_DEBUG") != "" {
		level = slog.LevelDebug
	}
	err := desktop.Run(ctx, desktop.Options{
		Environ: os.Environ(), Talk: os.Stderr,
		Tray: tray.Options{
			Client: localapi.NewClient(*socket), Environ: os.Environ(), Version: version.Version, Docs: documentation(),
			StartDaemon: func(ctx context.Context) error { return startDaemon(ctx, *socket) },
			Log:         slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		},
	})
	if err != nil && ctx.Err() == nil {
		return failed(httpjson.FromError(err))
	}
	return 0
}

func failed(e *localapi.Error) int {
	fmt.Fprintf(os.Stderr, "error: %s\n", e.Message)
	if e.Hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", e.Hint)
	}
	if e.Code == localapi.CodeUsage {
		return 2
	}
	return 1
}

// documentation is where a package or an archive has put its first page, as a URL;
// empty: nowhere.
func documentation() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	for _, place := range []string{"docs/html/index.html", "../share/doc/podnet/html/index.html"} {
		name := filepath.Join(filepath.Dir(self), filepath.FromSlash(place))
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			path := filepath.ToSlash(name)
			return (&url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(path, "/")}).String()
		}
	}
	return ""
}

// startDaemon starts the podnet that is beside this program, or else the user's.
func startDaemon(ctx context.Context, socket string) error {
	if _, err := localapi.NewClient(socket).Version(ctx); !errors.Is(err, localapi.ErrNoDaemon) {
		return err
	}
	podnet := "podnet"
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), podnet)); err == nil {
			podnet = beside
		}
	}
	podnet, err := exec.LookPath(podnet)
	if err != nil {
		return &localapi.Error{Code: localapi.CodeDaemon, Message: "the program podnet is neither beside podnet-tray nor in the PATH", Hint: "install podnet"}
	}
	return daemon.Start(ctx, socket, filepath.Join(localapi.StateDir(), "daemon.log"), podnet, "daemon", "--on-demand", "--socket", socket)
}
