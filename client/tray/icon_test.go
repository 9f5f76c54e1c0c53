package tray

import (
	"image"
	"testing"
)

func TestIconsDifferByShape(t *testing.T) {
	const size = 22 // as most panels have them
	all := []Icon{IconOff, IconConnecting, IconOn, IconDegraded, IconError}
	for i, a := range all {
		for _, b := range all[i+1:] {
			// In shades of grey: how many pixels are clearly lighter or emptier in one.
			differ := 0
			pa, pb := a.Draw(size), b.Draw(size)
			for y := range size {
				for x := range size {
					if d := shade(pa, x, y) - shade(pb, x, y); d > 64 || d < -64 {
						differ++
					}
				}
			}
			if differ < size*size/10 {
				t.Errorf("%v and %v differ in %d of %d pixels", a, b, differ, size*size)
			}
		}
	}
}

// shade is how dark a pixel is on white, the colour forgotten: ink counts as black.
func shade(img *image.NRGBA, x, y int) int {
	c := img.NRGBAAt(x, y)
	if c.R > 0xf0 && c.G > 0xf0 && c.B > 0xf0 {
		return 0
	}
	return int(c.A)
}
