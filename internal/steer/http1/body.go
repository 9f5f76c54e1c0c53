package http1

import "podnet.dev/internal/steer"

// maxExtension is how many bytes of extension a chunk may have. Nobody has a use
// for them but those who want to be misunderstood.
const maxExtension = 256

// Body follows the bytes of a message's body to where it ends. The zero value is
// a body of no bytes.
type Body struct {
	kind  bodyKind
	left  uint64 // bytes to come, of the body or of the chunk
	state chunkState
	count int // of digits or bytes of extension of a chunk, of bytes of the trailers
	lines int // of the trailers
}

type bodyKind uint8

const (
	sized    bodyKind = iota
	chunked           // with Transfer-Encoding: chunked
	untilEnd          // of the connection
)

// chunkState says what the next byte of a chunked body has to be.
//
//	size -> extension -> sizeLF -> data -> dataCR -> dataLF -> size
//	                       | size 0
//	                       v
//	                  trailer <-> name -> value -> valueLF
//	                       |
//	                       v
//	                    lastLF -> ended
type chunkState uint8

const (
	size chunkState = iota // digits of the chunk's size, or what ends them
	extension
	sizeLF
	data
	dataCR
	dataLF
	trailer // the first byte of a trailer line, or the CR of the last line
	name
	value
	valueLF
	lastLF
	ended
)

// Feed takes what comes next and returns how many of its bytes belong to the
// body, and whether the body is through. Any error is a Doubt: where the body ends
// is not known, and its byte n is the one that is odd.
func (b *Body) Feed(p []byte) (n int, done bool, err error) {
	switch b.kind {
	case chunked:
		return b.feedChunks(p)
	case untilEnd:
		return len(p), false, nil
	default:
		n = b.take(p)
		return n, b.left == 0, nil
	}
}

// take counts those of p that are bytes of the body or the chunk.
func (b *Body) take(p []byte) int {
	n := min(uint64(len(p)), b.left)
	b.left -= n
	return int(n)
}

func (b *Body) feedChunks(p []byte) (n int, done bool, err error) {
	for n < len(p) && b.state != ended {
		if b.state == data {
			n += b.take(p[n:])
			if b.left == 0 {
				b.state = dataCR
			}
			continue
		}
		if err := b.step(p[n]); err != nil {
			return n, false, err
		}
		n++
	}
	return n, b.state == ended, nil
}

// step takes a byte that is not a chunk's data.
func (b *Body) step(c byte) error {
	switch b.state {
	case size, extension:
		return b.stepSize(c)
	case sizeLF:
		next := data
		if b.left == 0 {
			next = trailer
		}
		b.count = 0
		return b.expect(c, '\n', next)
	case dataCR:
		return b.expect(c, '\r', dataLF)
	case dataLF:
		return b.expect(c, '\n', size)
	case lastLF:
		return b.expect(c, '\n', ended)
	default:
		return b.stepTrailer(c)
	}
}

func (b *Body) expect(c, want byte, next chunkState) error {
	if c != want {
		return Doubt("the end of a chunk")
	}
	b.state = next
	return nil
}

// stepSize takes a byte of the line that begins a chunk: digits, and perhaps an
// extension behind a semicolon.
func (b *Body) stepSize(c byte) error {
	switch {
	case c == '\r' && (b.count > 0 || b.state == extension):
		b.state = sizeLF
	case b.state == extension:
		if b.count++; b.count > maxExtension || !isTextByte(c) {
			return Doubt("the extension of a chunk")
		}
	case c == ';' && b.count > 0:
		b.state, b.count = extension, 0
	case isHex(c) && b.count < 16 && b.left < 1<<59:
		b.count++
		b.left = b.left<<4 | uint64(hexValue(c))
	default:
		return Doubt("the size of a chunk")
	}
	return nil
}

// stepTrailer takes a byte of the lines behind the last chunk. They follow the
// rules of a head.
func (b *Body) stepTrailer(c byte) error {
	if b.count++; b.count > steer.MaxHead {
		return Doubt("its trailers are too long")
	}
	switch {
	case b.state == valueLF:
		return b.expect(c, '\n', trailer)
	case b.state == trailer && c == '\r':
		b.state = lastLF
	case b.state == value && c == '\r':
		b.state = valueLF
	case b.state == value && isTextByte(c):
	case b.state == name && c == ':':
		b.state = value
	case b.state == name && isTokenByte(c):
	case b.state == trailer && isTokenByte(c) && b.lines < steer.MaxFields:
		b.lines++
		b.state = name
	default:
		return Doubt("its trailers")
	}
	return nil
}

// isTextByte reports whether a field's value may have c.
func isTextByte(c byte) bool {
	return c >= ' ' && c != 0x7f || c == '\t'
}

func hexValue(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
