package desktop

import (
	"encoding/binary"
	"image"
)

// ico is an image as a Windows icon file of one size, at most 256 by 256: a folder of
// one, and a bitmap with its rows from the bottom up, blue first, and a mask that says
// nothing, as alpha does.
func ico(img *image.NRGBA) []byte {
	const folder, entry, header = 6, 16, 40
	w, h := img.Rect.Dx(), img.Rect.Dy()
	mask := (w + 31) / 32 * 4 * h
	le := binary.LittleEndian
	b := le.AppendUint16(nil, 0)
	b = le.AppendUint16(b, 1) // icons
	b = le.AppendUint16(b, 1) // how many
	b = append(b, byte(w), byte(h), 0, 0)
	b = le.AppendUint16(b, 1)  // planes
	b = le.AppendUint16(b, 32) // bits of a pixel
	b = le.AppendUint32(b, uint32(header+4*w*h+mask))
	b = le.AppendUint32(b, folder+entry)
	b = le.AppendUint32(b, header)
	b = le.AppendUint32(b, uint32(w))
	b = le.AppendUint32(b, uint32(2*h)) // with the mask's
	b = le.AppendUint16(b, 1)
	b = le.AppendUint16(b, 32)
	b = append(b, make([]byte, header-16)...)
	for y := h - 1; y >= 0; y-- {
		for x := range w {
			c := img.NRGBAAt(x, y)
			b = append(b, c.B, c.G, c.R, c.A)
		}
	}
	return append(b, make([]byte, mask)...)
}
