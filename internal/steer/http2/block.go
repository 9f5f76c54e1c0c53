package http2

import (
	"bytes"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// block is a decoded header block.
type block struct {
	fields []hpack.HeaderField // in order, with pseudo fields
	// large says that there was more than a head may have. What was decoded
	// first is in fields.
	large bool
}

// decoder reads the header blocks of a connection. A block is decoded to its end
// even if it is too large, as the blocks after it build on it.
type decoder struct {
	hpack  *hpack.Decoder
	block  block
	size   int // of the fields (RFC 9113, section 6.5.2)
	bytes  int // of the block, coded
	frames int
}

func newDecoder() *decoder {
	d := new(decoder)
	d.hpack = hpack.NewDecoder(headerTable, d.field)
	return d
}

func (d *decoder) field(f hpack.HeaderField) {
	d.size += int(f.Size())
	if d.size > steer.MaxHead || len(d.block.fields) == steer.MaxFields {
		d.block.large = true
		d.hpack.SetEmitEnabled(false)
		return
	}
	d.block.fields = append(d.block.fields, f)
}

// begin starts a block.
func (d *decoder) begin() {
	d.block, d.size, d.bytes, d.frames = block{}, 0, 0, 0
	d.hpack.SetEmitEnabled(true)
}

// fragment takes the next frame's part of a block. The error is a
// http2.ConnectionError.
func (d *decoder) fragment(b []byte) error {
	d.bytes += len(b)
	d.frames++
	if d.bytes > maxBlock || d.frames > 1+maxContinuations {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := d.hpack.Write(b); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	return nil
}

// finish returns the block. The error is a http2.ConnectionError.
func (d *decoder) finish() (block, error) {
	if err := d.hpack.Close(); err != nil {
		return block{}, http2.ConnectionError(http2.ErrCodeCompression)
	}
	return d.block, nil
}

// encoder writes the header blocks of a connection. Fields that were never to be
// indexed are not here either.
type encoder struct {
	hpack *hpack.Encoder
	coded bytes.Buffer
}

func newEncoder() *encoder {
	e := new(encoder)
	e.hpack = hpack.NewEncoder(&e.coded)
	return e
}

// resize follows the other end's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) resize(n uint32) { e.hpack.SetMaxDynamicTableSize(min(n, headerTable)) }

// write writes fields as one HEADERS frame and what CONTINUATION it needs.
// Writing to memory cannot fail.
func (e *encoder) write(fr *http2.Framer, id uint32, fields []hpack.HeaderField, end bool) {
	e.coded.Reset()
	for _, f := range fields {
		_ = e.hpack.WriteField(f)
	}
	b := e.coded.Next(maxFrame)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: b, EndStream: end, EndHeaders: e.coded.Len() == 0,
	})
	for e.coded.Len() > 0 {
		b = e.coded.Next(maxFrame)
		_ = fr.WriteContinuation(id, e.coded.Len() == 0, b)
	}
}
