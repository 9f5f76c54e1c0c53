// Package desktop puts a tray into a user's desktop: icon and menu, notifications,
// clipboard, start at login. It is the one place that speaks to a session bus and to
// the library for icons, and knows nothing of podnet but tray.Menu.
package desktop

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"runtime"

	"fyne.io/systray"

	"podnet.dev/client/browse"
	"podnet.dev/client/localapi"
	"podnet.dev/client/tray"
)

// Options of Run.
type Options struct {
	// Environ is the user's environment.
	Environ []string
	// Talk is for people: what is waited for, and why.
	Talk io.Writer
	// Tray is what stands behind the icon; Run gives it the Desktop.
	Tray tray.Options
}

// Run shows the icon until ctx is done, the user quits, or the desktop session ends.
// Where there is no session bus yet, or no panel, it says so and waits. A process can
// run it once.
func Run(ctx context.Context, o Options) error {
	if err := refuse(os.Geteuid(), o.Environ); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program to start at login: %w", err)
	}
	// What the library has to say is about a panel that is gone, and for the curious.
	log.SetOutput(slog.NewLogLogger(o.Tray.Log.Handler(), slog.LevelDebug).Writer())
	log.SetFlags(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &desktop{panel: newPanel(), environ: o.Environ, autostart: autostartOf(o.Environ, program), log: o.Tray.Log}
	leave, err := d.enter(ctx, cancel, o.Talk)
	if err != nil {
		return err
	}
	defer leave()

	o.Tray.Desktop = d
	ended := make(chan error, 1)
	go func() {
		ended <- tray.Run(ctx, o.Tray)
		systray.Quit()
	}()
	systray.SetTitle("podnet") // names the item for good
	systray.Run(d.begin, func() {})
	return <-ended
}

// refuse keeps the icon out of a desktop that is somebody else's: run by sudo it would
// speak to root's daemon, and leave root's files in the user's home.
func refuse(euid int, environ []string) error {
	if euid != 0 {
		return nil
	}
	for _, name := range []string{"SUDO_USER", "DOAS_USER", "PKEXEC_UID"} {
		if user := variable(environ, name); user != "" && user != "root" && user != "0" {
			return &localapi.Error{Code: localapi.CodeUsage, Message: "podnet-tray belongs into your own desktop session and does not run as root for somebody else",
				Hint: "run podnet-tray without sudo"}
		}
	}
	return nil
}

// desktop is a tray.Desktop.
type desktop struct {
	*panel
	speaker
	environ   []string
	autostart autostart
	log       *slog.Logger
}

func (d *desktop) Clicks() <-chan tray.Action { return d.clicks }
func (d *desktop) Opened() <-chan struct{}    { return systray.TrayOpenedCh }

func (d *desktop) Notify(n tray.Note) {
	if err := d.speaker.notify(n); err != nil {
		d.log.Debug("nobody shows notifications", "title", n.Title, "err", err)
	}
}

func (d *desktop) Copy(ctx context.Context, text string) error {
	program, err := copier(runtime.GOOS, d.environ, func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	})
	if err != nil {
		return err
	}
	return fill(ctx, program, text)
}

func (d *desktop) Open(url string) error { return browse.Open(url) }

func (d *desktop) StartsAtLogin() (on, can bool) { return d.autostart.on(), runtime.GOOS == "linux" }

func (d *desktop) SetStartsAtLogin(on bool) error { return d.autostart.set(on) }
