package desktop

import (
	"bytes"
	"image"
	"image/color"
	"image/png"

	"podnet.dev/client/tray"
)

// mark stands before the letter of a shortcut (com.canonical.dbusmenu, label).
const mark = "_"

// pixels is the size of an icon, several times what panels have: they make it smaller,
// and its edges smooth by that.
const pixels = 96

// picture is an icon as the library takes it.
func picture(i tray.Icon) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, solid(i.Draw(pixels))); err != nil {
		panic(err) // an image of ours into memory
	}
	return b.Bytes()
}

// solid makes each pixel whole or clear. Of one in between the library takes the low
// halves of its 16 bit colours, which are noise (v1.12.2, argbForImage).
func solid(img *image.NRGBA) *image.NRGBA {
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			c := img.NRGBAAt(x, y)
			if c.A < 0x80 {
				c = color.NRGBA{}
			} else {
				c.A = 0xff
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}
