package tray

import (
	"image"
	"image/color"
	"math"
)

// Icon is what stands in the panel: a colour, and a shape that tells the same to
// whoever does not see colours apart.
type Icon int

const (
	IconOff        Icon = iota // grey ring
	IconConnecting             // blue ring, half full
	IconOn                     // green disc with a tick
	IconDegraded               // amber triangle with an exclamation mark
	IconError                  // red octagon with a cross
)

// String is the state that the icon stands for.
func (i Icon) String() string {
	return [...]string{"off", "connecting", "on", "degraded", "error"}[i]
}

// Color is the icon's own, which shows on light panels and on dark ones.
func (i Icon) Color() color.NRGBA {
	return [...]color.NRGBA{
		IconOff:        {0x8c, 0x95, 0x9f, 0xff},
		IconConnecting: {0x2f, 0x81, 0xf7, 0xff},
		IconOn:         {0x2d, 0xa4, 0x4e, 0xff},
		IconDegraded:   {0xe0, 0x93, 0x00, 0xff},
		IconError:      {0xd1, 0x24, 0x2f, 0xff},
	}[i]
}

// shape says whether a point is inside. Points are from -1 to 1, y downwards.
type shape func(x, y float64) bool

// shapes are the body of an icon, in its colour, and the white sign on it.
func (i Icon) shapes() (body, sign shape) {
	ring := func(x, y float64) bool { r := math.Hypot(x, y); return r < 0.88 && r > 0.62 }
	switch i {
	case IconOff:
		return ring, nil
	case IconConnecting:
		return func(x, y float64) bool { return ring(x, y) || y > 0 && math.Hypot(x, y) < 0.88 }, nil
	case IconOn:
		return func(x, y float64) bool { return math.Hypot(x, y) < 0.94 },
			either(line(-0.46, 0.04, -0.12, 0.38, 0.13), line(-0.12, 0.38, 0.48, -0.34, 0.13))
	case IconDegraded:
		// The corners of a triangle are rounded by drawing a smaller one with a thick line.
		return either(triangle, either(line(0, -0.7, 0.76, 0.7, 0.2), either(line(0, -0.7, -0.76, 0.7, 0.2), line(-0.76, 0.7, 0.76, 0.7, 0.2)))),
			either(line(0, -0.3, 0, 0.22, 0.12), func(x, y float64) bool { return math.Hypot(x, y-0.58) < 0.14 })
	default:
		return func(x, y float64) bool {
				x, y = math.Abs(x), math.Abs(y)
				return max(x, y) < 0.9 && x+y < 0.9*math.Sqrt2
			},
			either(line(-0.38, -0.38, 0.38, 0.38, 0.13), line(-0.38, 0.38, 0.38, -0.38, 0.13))
	}
}

func triangle(x, y float64) bool { return y < 0.7 && math.Abs(x) < 0.76*(y+0.7)/1.4 }

func either(a, b shape) shape { return func(x, y float64) bool { return a(x, y) || b(x, y) } }

// line is what is within half of the line from one point to another, its width apart.
func line(x1, y1, x2, y2, half float64) shape {
	dx, dy := x2-x1, y2-y1
	return func(x, y float64) bool {
		t := ((x-x1)*dx + (y-y1)*dy) / (dx*dx + dy*dy)
		t = min(max(t, 0), 1)
		return math.Hypot(x-x1-t*dx, y-y1-t*dy) < half
	}
}

// samples are taken of each pixel in either direction, for smooth edges.
const samples = 4

// Draw is the icon in size by size pixels.
func (i Icon) Draw(size int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	body, sign := i.shapes()
	ink, white := i.Color(), color.NRGBA{0xff, 0xff, 0xff, 0xff}
	for py := range size {
		for px := range size {
			var r, g, b, n int
			for s := range samples * samples {
				at := func(p, s int) float64 {
					return (float64(p)+(float64(s)+0.5)/samples)/float64(size)*2 - 1
				}
				x, y := at(px, s%samples), at(py, s/samples)
				c := ink
				switch {
				case sign != nil && sign(x, y):
					c = white
				case !body(x, y):
					continue
				}
				r, g, b, n = r+int(c.R), g+int(c.G), b+int(c.B), n+1
			}
			if n > 0 {
				img.SetNRGBA(px, py, color.NRGBA{uint8(r / n), uint8(g / n), uint8(b / n), uint8(n * 255 / (samples * samples))})
			}
		}
	}
	return img
}
