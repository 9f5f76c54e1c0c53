package desktop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"podnet.dev/client/localapi"
	"podnet.dev/client/tray"
)

const (
	// watcher is whoever knows the icons and tells the panels.
	watcher     = "org.kde.StatusNotifierWatcher"
	watcherPath = "/StatusNotifierWatcher"
	// iconPath is where the library has the icon.
	iconPath = "/StatusNotifierItem"
	// settle is how long the library has to make its icon, and to tell a watcher of it.
	settle = time.Second
	// ourName is that of the one tray of a desktop session.
	ourName = "dev.podnet.Tray"
	// busEvery is how soon a session bus is noticed.
	busEvery = time.Second
)

// enter waits for the session bus and takes our place there. over is called when the
// session ends. The panel is waited for beside what else goes on.
func (d *desktop) enter(ctx context.Context, over func(), talk io.Writer) (leave func(), err error) {
	bus, err := awaitBus(ctx, d.environ, talk)
	if err != nil {
		return nil, err
	}
	reply, err := bus.RequestName(ourName, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = &localapi.Error{Code: localapi.CodeConflict, Message: "podnet-tray runs already in this desktop session", Hint: "its icon is in the panel; Quit is at the end of its menu"}
	}
	owners := make(chan *dbus.Signal, 8)
	bus.Signal(owners)
	if err == nil {
		err = bus.AddMatchSignal(dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, watcher))
	}
	if err != nil {
		_ = bus.Close()
		return nil, err
	}
	d.speaker.bus = bus
	var watching sync.WaitGroup
	watching.Go(func() {
		d.watch(bus, owners, talk)
		over()
	})
	return func() {
		_ = bus.Close()
		watching.Wait()
	}, nil
}

// watch follows who shows icons, until the bus is gone.
func (d *desktop) watch(bus *dbus.Conn, owners <-chan *dbus.Signal, talk io.Writer) {
	time.AfterFunc(settle, d.settled)
	var there bool
	if err := bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, watcher).Store(&there); err == nil && !there {
		fmt.Fprint(talk, "no panel here shows status icons yet: waiting for one\n"+
			"hint: GNOME needs the extension AppIndicator (gnome-shell-extension-appindicator); the panels of KDE, Xfce, LXQt, MATE and Cinnamon have a status area to add\n")
	}
	for s := range owners {
		if len(s.Body) < 3 {
			continue
		}
		owner, _ := s.Body[2].(string)
		d.log.Info("the keeper of the panel's icons has changed", "owner", owner)
		if owner == "" {
			d.again() // for the next one
		} else {
			time.AfterFunc(settle, d.settled)
		}
	}
}

// settled makes up for what the library loses (v1.12.2): what it is told while it makes
// its icon (nativeStart), and a watcher that comes just then, as at a login, since it tries
// once, and listens for another watcher only afterwards (stayRegistered).
func (d *desktop) settled() {
	bus, err := dbus.SessionBus() // the library's connection, whose the icon is
	if err != nil || !bus.Connected() {
		return // the session has ended
	}
	d.dressAgain()
	panel := bus.Object(watcher, watcherPath)
	known, err := panel.GetProperty(watcher + ".RegisteredStatusNotifierItems")
	if err != nil {
		d.log.Info("the panel does not tell its icons", "err", err)
		return
	}
	names, _ := known.Value().([]string)
	ours := func(name string) bool {
		owner, _, _ := strings.Cut(name, "/")
		return slices.Contains(bus.Names(), owner)
	}
	if slices.ContainsFunc(names, ours) {
		return
	}
	if err := panel.Call(watcher+".RegisterStatusNotifierItem", 0, iconPath).Err; err != nil {
		d.log.Info("the panel does not take the icon", "err", err)
	}
}

// awaitBus connects to the session bus, once there is one.
func awaitBus(ctx context.Context, environ []string, talk io.Writer) (*dbus.Conn, error) {
	for told := false; ; told = true {
		bus, err := dialBus(environ)
		if err == nil {
			return bus, nil
		}
		if !told {
			fmt.Fprintf(talk, "no desktop session to show an icon in yet (%v): waiting for one\nhint: podnet-tray runs inside a graphical session, not over ssh\n", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(busEvery):
		}
	}
}

// dialBus connects to the session bus that environ names, or to the one of the user's
// login. The library for icons looks for it by the environment and would start one.
func dialBus(environ []string) (*dbus.Conn, error) {
	address := variable(environ, "DBUS_SESSION_BUS_ADDRESS")
	if address == "" {
		socket := filepath.Join(variable(environ, "XDG_RUNTIME_DIR"), "bus")
		if _, err := os.Stat(socket); !filepath.IsAbs(socket) || err != nil {
			return nil, errors.New("no session bus")
		}
		address = "unix:path=" + socket
	}
	bus, err := dbus.Connect(address)
	if err != nil {
		return nil, err
	}
	return bus, os.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
}

// speaker shows notifications (freedesktop.org, Desktop Notifications Specification).
type speaker struct {
	bus *dbus.Conn

	mu   sync.Mutex
	last uint32 // which the next takes the place of
}

func (s *speaker) notify(n tray.Note) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	urgency, lasts := byte(1), int32(-1)
	if n.Urgent {
		urgency, lasts = 2, 0
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency), "desktop-entry": dbus.MakeVariant("podnet-tray")}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.bus.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").CallWithContext(ctx, "org.freedesktop.Notifications.Notify", 0,
		"podnet", s.last, "network-vpn", n.Title, markup(n.Text), []string{}, hints, lasts).Store(&s.last)
}

// markup keeps text what it is where a notification may have markup.
func markup(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}
