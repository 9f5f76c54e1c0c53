//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// terminalRole DIR SIZE SCRIPT is a screen with a terminal on it, of so many columns
// and lines ("80x24"), in which a shell runs SCRIPT. It says how to look at it once
// the script is over.
func terminalRole(ctx context.Context, args []string) error {
	dir, size, script := args[0], args[1], args[2]
	s := graphical{env: os.Environ(), dir: dir}
	defer s.end()
	screen, err := s.line("Xvfb", "-displayfd", "1", "-screen", "0", "1700x1200x24", "-nolisten", "tcp")
	if err != nil {
		return err
	}
	s.env = append(s.env, "DISPLAY=:"+screen)
	over := filepath.Join(dir, "over")
	// A person's terminal, wherever the test runs. No cursor, and the window stays.
	script = `unset CI NO_COLOR; printf '\033[?25l'; ` + script + `; touch ` + over + `; exec sleep infinity`
	if _, err := s.start("xterm", "-geometry", size+"+0+0", "-fa", "DejaVu Sans Mono", "-fs", "11", "-bg", "#1c1c22", "-fg", "#e6e6e6", "+sb", "-bw", "0", "-b", "14",
		"-xrm", "*color2: #5fd068", "-xrm", "*color3: #e9b949", "-xrm", "*color1: #f0616d", "-e", "sh", "-c", script); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(over); err == nil {
			break
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the script is not over: %w", err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(sighting{At: time.Now(), What: works, Text: "DISPLAY=:" + screen}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// terminal is what a terminal on the machine shows after podnet has run there, with
// the command line above.
func (m machine) terminal(t *testing.T, size string, args ...string) *image.NRGBA {
	t.Helper()
	d := &desktop{machine: m, dir: m.folder(t)}
	script := fmt.Sprintf("echo '$ podnet %s'; %s %[1]s", strings.Join(args, " "), m.program("podnet"))
	w := m.start(t, "terminal", d.dir, size, script)
	eventually(t, 60*time.Second, "the terminal", func() error {
		s, ok := w.last(works)
		if !ok {
			return fmt.Errorf("%s", w.talk.String())
		}
		d.env = strings.Fields(s.Text)
		return nil
	})
	var shown *image.NRGBA
	eventually(t, 10*time.Second, "all is drawn", func() error {
		before := shown
		if shown = window(d.screen(t)); before == nil || before.Rect != shown.Rect || string(before.Pix) != string(shown.Pix) {
			return fmt.Errorf("it still changes, or there is nothing: %v", shown.Rect)
		}
		return nil
	})
	w.stop()
	return shown
}

// window is the part of a screen that is not the black behind the windows.
func window(screen *image.NRGBA) *image.NRGBA {
	var r image.Rectangle
	for y := range screen.Rect.Dy() {
		for x := range screen.Rect.Dx() {
			if screen.NRGBAAt(x, y) != (color.NRGBA{A: 255}) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	out := image.NewNRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	for y := range r.Dy() {
		for x := range r.Dx() {
			out.SetNRGBA(x, y, screen.NRGBAAt(r.Min.X+x, r.Min.Y+y))
		}
	}
	return out
}

// hues counts the pixels of a picture that are green, and those that are yellow.
func hues(img *image.NRGBA) (green, yellow int) {
	for i := 0; i < len(img.Pix); i += 4 {
		r, g, b := int(img.Pix[i]), int(img.Pix[i+1]), int(img.Pix[i+2])
		switch {
		case g > 150 && g-r > 60 && g-b > 60:
			green++
		case r > 150 && g > 120 && r-b > 80 && g-b > 60:
			yellow++
		}
	}
	return green, yellow
}

// few is a picture with so few colours, where that suffices, that it becomes a small
// file: text is of few, in steps of 1/32.
func few(img *image.NRGBA) image.Image {
	out := image.NewPaletted(img.Rect, nil)
	known := map[color.NRGBA]uint8{}
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			c := img.NRGBAAt(x, y)
			c.R, c.G, c.B = c.R&^7, c.G&^7, c.B&^7
			i, ok := known[c]
			if !ok {
				if len(out.Palette) == 256 {
					return img
				}
				i = uint8(len(out.Palette))
				known[c], out.Palette = i, append(out.Palette, c)
			}
			out.SetColorIndex(x, y, i)
		}
	}
	return out
}

// TestInATerminal takes pictures of what alice sees in a terminal, in colours: what is
// connected, and what is wrong with the way there.
func TestInATerminal(t *testing.T) {
	calm(t)
	alice.connect(t, "-n", "shop")
	alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop/blob?size=3M", "-o", "/dev/null").must(t)
	keep := func(name string, img *image.NRGBA) {
		t.Helper()
		f, err := os.Create(filepath.Join(pictures(t), "terminal-"+name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(f, few(img)); err != nil {
			t.Fatal(err)
		}
	}
	img := alice.terminal(t, "126x13", "status")
	keep("status", img)
	if green, yellow := hues(img); img.Rect.Dx() < 500 || green < 100 || yellow > 0 {
		t.Errorf("status: %v with %d green and %d yellow pixels", img.Rect, green, yellow)
	}
	alice.podnet("disconnect").must(t)
	lab("drop-udp", "laptop").must(t)
	img = alice.terminal(t, "172x50", "doctor", "-n", "shop")
	keep("doctor", img)
	if green, yellow := hues(img); green < 1000 || yellow < 100 {
		t.Errorf("doctor: %v with %d green and %d yellow pixels", img.Rect, green, yellow)
	}
}
