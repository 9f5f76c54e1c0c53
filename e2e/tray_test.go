//go:build e2e

package e2e

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/tray"
)

// desktop is a graphical session on a machine: a screen, a panel, and podnet-tray.
type desktop struct {
	machine
	uid string   // whose it is
	dir string   // its bus, its configuration
	env []string // of a program that is to be in it

	pictures string       // where they are kept
	empty    *image.NRGBA // the screen without a menu
}

// desktop begins an ordinary user's session, for the time of the test. Who looks and
// clicks is root.
func (m machine) desktop(t *testing.T) *desktop {
	t.Helper()
	dir := m.folder(t)
	d := &desktop{machine: m, dir: dir, uid: m.plain().cmd("id", "-u").must(t), pictures: pictures(t)}
	w := m.start(t, "desktop", dir, d.uid, m.program("podnet-tray"))
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "tray.log")); t.Failed() {
			t.Logf("podnet-tray said: %s (%v)", log, err)
		}
	})
	eventually(t, 20*time.Second, "a panel", func() error {
		s, ok := w.last(works)
		if !ok {
			return fmt.Errorf("%s", w.talk.String())
		}
		d.env = strings.Fields(s.Text)
		return nil
	})
	return d
}

// in is a command in the session.
func (d *desktop) in(args ...string) command {
	return d.cmd(append(append([]string{"env"}, d.env...), args...)...)
}

// eye and hand are the user's, by the bus.
func (d *desktop) eye(t testing.TB) string {
	t.Helper()
	return d.in(playing("menu", d.uid)...).must(t)
}

func (d *desktop) click(t testing.TB, labels ...string) {
	t.Helper()
	d.in(playing("menu", append([]string{d.uid}, labels...)...)...).must(t)
}

// shows waits for a line of the menu.
func (d *desktop) shows(t testing.TB, within time.Duration, line string) time.Duration {
	t.Helper()
	return eventually(t, within, "the menu says "+line, func() error {
		if got := d.eye(t); !strings.Contains(got, line) {
			return fmt.Errorf("no %q in:\n%s", line, got)
		}
		return nil
	})
}

// screen is what the screen shows.
func (d *desktop) screen(t testing.TB) *image.NRGBA {
	t.Helper()
	file := filepath.Join(d.dir, "screen.png")
	d.in("scrot", "--overwrite", file).must(t)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewNRGBA(img.Bounds())
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			out.Set(x, y, img.At(x, y))
		}
	}
	return out
}

// panelHeight is that of the panel at the top of the screen, in pixels.
const panelHeight = 32

// icon is where the icon of a state is in the panel: it waits until it is there, and
// no icon of another state is.
func (d *desktop) icon(t testing.TB, want tray.Icon) (at image.Point) {
	t.Helper()
	eventually(t, 5*time.Second, "icon "+want.String(), func() error {
		img := d.screen(t)
		for _, i := range []tray.Icon{tray.IconOff, tray.IconConnecting, tray.IconOn, tray.IconDegraded, tray.IconError} {
			n, middle := find(img, i.Color())
			if i == want {
				at = middle
			}
			if (n > 20) != (i == want) {
				return fmt.Errorf("%d pixels have the colour of %v", n, i)
			}
		}
		return nil
	})
	return at
}

// find counts the pixels of the panel that are all but of a colour, and is in their
// middle.
func find(img *image.NRGBA, c color.NRGBA) (n int, middle image.Point) {
	near := func(a, b uint8) bool { return max(a, b)-min(a, b) < 12 }
	for y := range panelHeight {
		for x := range img.Rect.Dx() {
			if p := img.NRGBAAt(x, y); near(p.R, c.R) && near(p.G, c.G) && near(p.B, c.B) {
				n, middle = n+1, middle.Add(image.Pt(x, y))
			}
		}
	}
	if n > 0 {
		middle = middle.Div(n)
	}
	return n, middle
}

// point clicks where something is on the screen.
func (d *desktop) point(t testing.TB, at image.Point) {
	t.Helper()
	d.in("xdotool", "mousemove", fmt.Sprint(at.X), fmt.Sprint(at.Y), "click", "1").must(t)
}

// open opens the menu by the pointer, and says where it is.
func (d *desktop) open(t testing.TB, at image.Point) image.Rectangle {
	t.Helper()
	d.empty = d.screen(t)
	d.point(t, at)
	return d.menu(t, 150)
}

// menu waits until menus are this wide, and says where they are on the screen.
func (d *desktop) menu(t testing.TB, width int) (menu image.Rectangle) {
	t.Helper()
	eventually(t, 5*time.Second, "the menu is open", func() error {
		if menu = d.changed(d.screen(t)); menu.Dx() < width {
			return fmt.Errorf("only %v has changed", menu)
		}
		return nil
	})
	return menu
}

// changed is where an image is not the empty screen, below the panel.
func (d *desktop) changed(img *image.NRGBA) (r image.Rectangle) {
	for y := panelHeight + 1; y < img.Rect.Dy(); y++ {
		for x := range img.Rect.Dx() {
			if img.NRGBAAt(x, y) != d.empty.NRGBAAt(x, y) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return r
}

// second is the second line of a menu, below a line and a separator, in the font that
// the lab has.
func second(menu image.Rectangle) image.Point { return menu.Min.Add(image.Pt(60, 41)) }

// keep puts the open menus and the panel above them where pictures are kept.
func (d *desktop) keep(t testing.TB, name string) {
	t.Helper()
	img := d.screen(t)
	menu := d.changed(img)
	part := image.Rect(min(menu.Min.X-12, img.Rect.Dx()-400), 0, img.Rect.Dx(), max(menu.Max.Y+8, panelHeight+8))
	f, err := os.Create(filepath.Join(d.pictures, "tray-"+name+".png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, img.SubImage(part)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTray has alice, who is not root, connect, copy, lose the network and disconnect by
// the icon in a real panel, by the pointer and through the bus.
func TestTray(t *testing.T) {
	calm(t)
	admin.helper(t, "alice")
	user := alice.plain()
	t.Cleanup(func() { user.podnet("disconnect", "--all").try(t) })
	d := alice.desktop(t)
	d.shows(t, 5*time.Second, "(Not connected)")
	at := d.icon(t, tray.IconOff)
	menu := d.open(t, at)
	d.keep(t, "open")

	began := time.Now()
	d.point(t, second(menu)) // Connect
	d.shows(t, 30*time.Second, "(Connected to ")
	d.icon(t, tray.IconOn)
	report(t, "a click on Connect to a green icon", time.Since(began).Round(100*time.Millisecond))
	want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "hello from web-")
	if s := user.status(t); s.State != "Connected" {
		t.Errorf("status says %s", s.State)
	}
	d.keep(t, "closed")
	d.shows(t, 10*time.Second, "http://web.shop   "+clusterIP(t, "shop", "web")+":80")
	d.click(t, "Services", "http://web.shop")
	eventually(t, 5*time.Second, "the URL is in the clipboard", func() error {
		if r := d.in("xclip", "-o", "-selection", "clipboard").try(t); r.stdout != "http://web.shop" {
			return fmt.Errorf("%q", r.stdout)
		}
		return nil
	})
	menu = d.open(t, at)
	d.in("xdotool", "key", "Down", "Down", "Down", "Down", "Right").must(t) // to the Services
	d.menu(t, menu.Dx()+100)
	d.keep(t, "connected")
	d.in("xdotool", "key", "Escape", "key", "Escape").must(t)

	lab("link", "laptop", "down").must(t)
	took := d.shows(t, 40*time.Second, " is degraded: ")
	d.icon(t, tray.IconDegraded)
	report(t, "the network gone to an amber icon", took.Round(100*time.Millisecond))
	d.open(t, at)
	d.keep(t, "degraded")
	d.in("xdotool", "key", "Escape").must(t)
	lab("link", "laptop", "up").must(t)
	d.shows(t, 40*time.Second, "(Connected to ")
	d.icon(t, tray.IconOn)

	d.point(t, second(d.open(t, at))) // Disconnect
	d.shows(t, 15*time.Second, "(Not connected)")
	d.icon(t, tray.IconOff)

	d.click(t, "Connect")
	d.shows(t, 30*time.Second, "(Connected to ")
	d.click(t, "Disconnect")
	d.shows(t, 15*time.Second, "(Not connected)")
	if left := kubectl("get", "peers,accesses", "-A", "-o", "name").must(t); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
}
