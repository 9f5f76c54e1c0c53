package desktop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// autostart is the file by which desktops start a program at login (freedesktop.org,
// Desktop Application Autostart Specification).
type autostart struct {
	file    string
	program string
}

// autostartOf is the user's own, in the folder that environ names.
func autostartOf(environ []string, program string) autostart {
	config := variable(environ, "XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) {
		config = filepath.Join(variable(environ, "HOME"), ".config")
	}
	return autostart{filepath.Join(config, "autostart", "podnet-tray.desktop"), program}
}

func variable(environ []string, name string) (value string) {
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// entry is what the file says (Desktop Entry Specification).
func entry(program string) []byte {
	return []byte(`[Desktop Entry]
Type=Application
Name=podnet
Comment=Shows which cluster this machine is connected to
Exec=` + quote(program) + `
Terminal=false
`)
}

// quote is an argument as Exec wants it: in double quotes, with what these let through
// escaped, and again as a string of the file.
func quote(arg string) string {
	arg = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`, `%`, `%%`).Replace(arg)
	return strings.ReplaceAll(`"`+arg+`"`, `\`, `\\`)
}

// starts says whether desktops start a program whose file has this content.
func starts(content []byte) bool {
	for line := range bytes.Lines(content) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch strings.TrimSpace(key) + "=" + strings.TrimSpace(value) {
		case "Hidden=true", "X-GNOME-Autostart-enabled=false":
			return false
		}
	}
	return true
}

// plan is what to do to a file that has a content, nil where there is none, so that
// the program starts at login or does not: write something, remove it, or neither.
func (a autostart) plan(have []byte, on bool) (write []byte, remove bool) {
	want := entry(a.program)
	switch {
	case on && !bytes.Equal(have, want):
		return want, false
	case !on && have != nil:
		return nil, true
	}
	return nil, false
}

// on says whether the program starts at login.
func (a autostart) on() bool {
	have, err := os.ReadFile(a.file)
	return err == nil && starts(have)
}

// set makes it start at login, or not.
func (a autostart) set(on bool) error {
	have, err := os.ReadFile(a.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start at login: %w", err)
	}
	write, remove := a.plan(have, on)
	switch {
	case remove:
		err = os.Remove(a.file)
	case write != nil:
		if err = os.MkdirAll(filepath.Dir(a.file), 0o700); err == nil {
			err = os.WriteFile(a.file, write, 0o644)
		}
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("start at login: %w", err)
	}
	return nil
}
