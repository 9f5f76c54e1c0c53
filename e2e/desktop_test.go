//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"podnet.dev/client/tray/desktop/fakepanel"
)

// xfcePanel has a panel across the top of the screen: a gap, the icons, a clock.
const xfcePanel = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array"><value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="size" type="uint" value="32"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/><value type="int" value="2"/><value type="int" value="3"/></property>
    </property></property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="separator"><property name="expand" type="bool" value="true"/><property name="style" type="uint" value="0"/></property>
    <property name="plugin-2" type="string" value="systray"><property name="square-icons" type="bool" value="true"/></property>
    <property name="plugin-3" type="string" value="clock"/>
  </property>
</channel>
`

// desktopRole DIR UID PROGRAM is a user's graphical session with a panel and PROGRAM in
// it, and its files in DIR. It says how to get into it once the panel has an icon. No
// window manager is needed.
func desktopRole(ctx context.Context, args []string) error {
	dir, uid, program := args[0], args[1], args[2]
	file := filepath.Join(dir, "config/xfce4/xfconf/xfce-perchannel-xml/xfce4-panel.xml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(xfcePanel), 0o644); err != nil {
		return err
	}
	if err := errors.Join(exec.Command("chown", "-R", uid, dir).Run(), become(number(uid))); err != nil {
		return err
	}
	s := graphical{env: append(os.Environ(), "NO_AT_BRIDGE=1", "GTK_THEME=Adwaita", "XDG_CONFIG_HOME="+filepath.Join(dir, "config")), dir: dir}
	defer s.end()
	screen, err := s.line("Xvfb", "-displayfd", "1", "-screen", "0", "900x640x24", "-nolisten", "tcp")
	if err != nil {
		return err
	}
	s.env = append(s.env, "DISPLAY=:"+screen)
	// What the bus starts has the bus's environment.
	address, err := s.line("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1", "--address=unix:path="+filepath.Join(dir, "bus"))
	if err != nil {
		return err
	}
	s.env = append(s.env, "DBUS_SESSION_BUS_ADDRESS="+address)
	if _, err := s.start("xfce4-panel", "--disable-wm-check"); err != nil {
		return err
	}
	bus, err := dbus.Connect(address)
	if err != nil {
		return err
	}
	defer bus.Close()
	if err := awaitName(ctx, bus, "org.kde.StatusNotifierWatcher"); err != nil {
		return err
	}
	if _, err := s.start(program); err != nil {
		return err
	}
	for {
		if items, err := fakepanel.Find(bus); err == nil && len(items) > 0 {
			break
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("no icon in the panel: %w", err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(sighting{At: time.Now(), What: works, Text: "DISPLAY=:" + screen + " DBUS_SESSION_BUS_ADDRESS=" + address}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// awaitName waits until somebody has a name on the bus.
func awaitName(ctx context.Context, bus *dbus.Conn, name string) error {
	for {
		var there bool
		if err := bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&there); err != nil || there {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("nobody has the name %s: %w", name, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// graphical are the programs of a session, which end with it.
type graphical struct {
	env     []string
	dir     string
	running []*exec.Cmd
}

func (s *graphical) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = s.env
	if log, err := os.Create(filepath.Join(s.dir, filepath.Base(args[0])+".log")); err == nil {
		cmd.Stderr = log
	}
	return cmd
}

func (s *graphical) start(args ...string) (*exec.Cmd, error) {
	cmd := s.command(args...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s, which bin/lab build installs: %w", args[0], err)
	}
	s.running = append(s.running, cmd)
	return cmd, nil
}

// line starts a program that says on its first line how to reach it.
func (s *graphical) line(args ...string) (string, error) {
	cmd := s.command(args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", fmt.Errorf("%s, which bin/lab build installs: %w", args[0], err)
	}
	s.running = append(s.running, cmd)
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return "", errors.New(args[0] + " says nothing")
	}
	return lines.Text(), nil
}

// end ends what was started, the latest first.
func (s *graphical) end() {
	for i := len(s.running) - 1; i >= 0; i-- {
		_ = s.running[i].Process.Kill()
		_ = s.running[i].Wait()
	}
}

// become gives root's rights up: a session bus is its user's alone.
func become(uid int) error {
	if err := errors.Join(syscall.Setgid(uid), syscall.Setuid(uid)); err != nil || os.Getppid() != 0 {
		return err
	}
	// Whoever has come here from outside of a system is to end with his parent, which
	// a change of user makes the kernel forget.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0)
}

// menuRole UID is the menu of the one icon of the user's session, or with LABEL... a
// click.
func menuRole(_ context.Context, args []string) error {
	if err := become(number(args[0])); err != nil {
		return err
	}
	labels := args[1:]
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		return err
	}
	defer bus.Close()
	items, err := fakepanel.Find(bus)
	if err != nil || len(items) != 1 {
		return fmt.Errorf("%d icons: %w", len(items), err)
	}
	if len(labels) > 0 {
		return items[0].Click(labels...)
	}
	lines, err := items[0].Menu()
	fmt.Print(fakepanel.Text(lines))
	return err
}
