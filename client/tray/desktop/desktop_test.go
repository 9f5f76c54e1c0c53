package desktop

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
	"podnet.dev/client/tray"
	"podnet.dev/internal/httpjson"
)

func TestNotBySudo(t *testing.T) {
	for _, c := range []struct {
		euid    int
		environ []string
		refused bool
	}{
		{1000, []string{"SUDO_USER=alice"}, false}, // sudo -u
		{0, nil, false}, // who logs in as root
		{0, []string{"SUDO_USER=root"}, false},
		{0, []string{"SUDO_USER=alice"}, true},
		{0, []string{"PKEXEC_UID=1000"}, true},
		{0, []string{"DOAS_USER=alice"}, true},
	} {
		err := refuse(c.euid, c.environ)
		if (err != nil) != c.refused {
			t.Errorf("uid %d with %v: %v", c.euid, c.environ, err)
		}
	}
}

func TestAllot(t *testing.T) {
	const p, c, s = tray.Plain, tray.Check, tray.Separator
	for _, x := range []struct {
		have, want []tray.Kind
		at         string
	}{
		{nil, []tray.Kind{p, s, c}, "[0 1 2]"},
		{[]tray.Kind{p, c, c}, []tray.Kind{p, c, c, c}, "[0 1 2 3]"},
		{[]tray.Kind{p, c, c}, []tray.Kind{c}, "[1]"},
		{[]tray.Kind{p, c, c}, []tray.Kind{c, p, c}, "[1 3 4]"},
		{[]tray.Kind{c, p}, []tray.Kind{}, "[]"},
	} {
		if got := fmt.Sprint(allot(slices.Clone(x.have), x.want)); got != x.at {
			t.Errorf("%v in %v: %s, want %s", x.want, x.have, got, x.at)
		}
	}
}

func TestCopier(t *testing.T) {
	for _, c := range []struct {
		system, environ, programs, want string
	}{
		{"linux", "DISPLAY=:0", "xclip xsel wl-copy", "xclip"},
		{"linux", "DISPLAY=:0", "xsel wl-copy", "xsel"},
		{"linux", "DISPLAY=:0 WAYLAND_DISPLAY=wayland-0", "xclip wl-copy", "wl-copy"},
		{"linux", "DISPLAY=:0 WAYLAND_DISPLAY=wayland-0", "xclip", "xclip"},
		{"linux", "WAYLAND_DISPLAY=wayland-0", "xclip", "install wl-copy (package wl-clipboard)"},
		{"linux", "DISPLAY=:0", "", "install xclip or xsel"},
		{"windows", "", "clip.exe", "clip.exe"},
	} {
		have := strings.Fields(c.programs)
		got, err := copier(c.system, strings.Fields(c.environ), func(name string) bool { return slices.Contains(have, name) })
		said := httpjson.FromError(err)
		if err == nil {
			said = &localapi.Error{Hint: got[0]}
		}
		if said.Hint != c.want {
			t.Errorf("%+v: %s, %v", c, said.Hint, err)
		}
	}
}

func TestAutostart(t *testing.T) {
	home := t.TempDir()
	a := autostartOf([]string{"HOME=" + home, "XDG_CONFIG_HOME=not/absolute"}, `/opt/my "tools"/100%/podnet$tray`)
	if want := filepath.Join(home, ".config/autostart/podnet-tray.desktop"); a.file != want {
		t.Errorf("the file is %s, want %s", a.file, want)
	}
	for _, on := range []bool{false, true, true, false, false, true} {
		if err := a.set(on); err != nil {
			t.Fatal(err)
		}
		if a.on() != on {
			t.Errorf("set to %v, and is %v", on, a.on())
		}
	}
	// As the specification escapes it: once for the quotes, once for the file.
	content, err := os.ReadFile(a.file)
	if want := "\nExec=\"/opt/my \\\\\"tools\\\\\"/100%%/podnet\\\\$tray\"\n"; err != nil || !strings.Contains(string(content), want) {
		t.Errorf("no %q in %s, %v", want, content, err)
	}
	// A desktop's own switch turns it off by a line of its own.
	if err := os.WriteFile(a.file, append(content, "X-GNOME-Autostart-enabled=false\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if a.on() {
		t.Error("it is off")
	}
	if write, remove := a.plan([]byte("mine"), true); remove || string(write) != string(content) {
		t.Errorf("plan: %q, %v", write, remove)
	}
}

func TestICO(t *testing.T) {
	img := tray.IconOn.Draw(32)
	b := ico(img)
	at := func(i int) int { return int(binary.LittleEndian.Uint32(b[i:])) }
	if b[2] != 1 || b[4] != 1 || b[6] != 32 || b[7] != 32 || at(14) != len(b)-22 || at(18) != 22 || at(22) != 40 || at(30) != 64 {
		t.Errorf("header % x", b[:62])
	}
	// The first pixel of the file is the lower left one.
	c := img.NRGBAAt(16, 31)
	if p := b[62+16*4:]; p[0] != c.B || p[1] != c.G || p[2] != c.R || p[3] != c.A {
		t.Errorf("pixel % x, want %+v", p[:4], c)
	}
}
