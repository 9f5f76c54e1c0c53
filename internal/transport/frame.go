package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The stream protocol is written down in docs/protocol.md: a preamble each way,
// then datagrams, each behind its length in two bytes, big-endian.

const (
	preambleLen = 8
	version     = 1
	headerLen   = 2
	// minFrame is the type word that every message begins with.
	minFrame = 4
	maxFrame = 65535
)

// preamble opens a stream: "podnet" and the protocol version.
var preamble = [preambleLen]byte{'p', 'o', 'd', 'n', 'e', 't', 0, version}

var (
	errGarbage = errors.New("not the podnet stream protocol")
	errFrame   = errors.New("frame holds no WireGuard message")
)

// VersionError says that the other end of a stream speaks another version of
// the stream protocol.
type VersionError struct{ Theirs, Ours uint16 }

func (e VersionError) Error() string {
	return fmt.Sprintf("stream protocol version %d there, %d here", e.Theirs, e.Ours)
}

// readPreamble reads the other end's preamble and nothing behind it. It gives up
// at the first wrong byte: who does not speak the protocol is not to be waited
// for.
func readPreamble(r io.Reader) error {
	var b [preambleLen]byte
	for n := 0; n < preambleLen; {
		m, err := r.Read(b[n:])
		n += m
		for i := range min(n, preambleLen-2) {
			if b[i] != preamble[i] {
				return errGarbage
			}
		}
		if n < preambleLen && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if v := binary.BigEndian.Uint16(b[preambleLen-2:]); v != version {
		return VersionError{Theirs: v, Ours: version}
	}
	return nil
}

// Kinds of message, by their first byte. WireGuard's own are followed by three
// zero bytes (its type is a little-endian word).
const (
	msgInitiation  = 1
	msgResponse    = 2
	msgCookie      = 3
	msgTransport   = 4
	msgControl     = 'p' // podnet's own; the second byte says which
	initiationSize = 148
	responseSize   = 92
	cookieSize     = 64
	transportMin   = 32
)

// isWireGuard reports whether m looks like a WireGuard message. What does not
// is never shown to the device.
func isWireGuard(m []byte) bool {
	if len(m) < minFrame || m[1]|m[2]|m[3] != 0 {
		return false
	}
	switch m[0] {
	case msgInitiation:
		return len(m) == initiationSize
	case msgResponse:
		return len(m) == responseSize
	case msgCookie:
		return len(m) == cookieSize
	case msgTransport:
		return len(m) >= transportMin
	}
	return false
}

// appendFrame appends m, at most maxFrame bytes, with its length before it.
func appendFrame(b, m []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
	return append(b, m...)
}

// nextFrame cuts the first frame off b. ok is false when b holds only a part of
// it; need is then how many bytes the whole takes, as far as known.
func nextFrame(b []byte) (m, rest []byte, need int, ok bool) {
	if len(b) < headerLen {
		return nil, b, headerLen, false
	}
	need = headerLen + int(binary.BigEndian.Uint16(b))
	if len(b) < need {
		return nil, b, need, false
	}
	return b[headerLen:need], b[need:], need, true
}

// checkFrame refuses what no podnet sends. Messages of kind msgControl pass,
// whatever they are: later versions may say more with them.
func checkFrame(m []byte) error {
	if isWireGuard(m) || len(m) >= minFrame && m[0] == msgControl {
		return nil
	}
	return errFrame
}

// Sizes of a frameReader's buffer. Streams begin small, since a gateway has many
// that idle, and borrow a large buffer while they carry bulk (1 MiB: larger
// ones were no faster).
const (
	smallBuffer = 32 << 10
	largeBuffer = 1 << 20
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// frameReader cuts a stream into frames, many per read and without copying
// them.
type frameReader struct {
	src   io.Reader
	buf   []byte // small or large[:]
	small []byte
	large *[largeBuffer]byte // borrowed; nil: none
	r, w  int                // unread bytes are buf[r:w]
	full  bool               // the last read left no room: there is bulk
	// controls is how many of the frames that next has returned are of kind
	// msgControl.
	controls int
}

// next blocks for at least one whole frame and returns all whole frames at hand,
// headers included. They stay valid until the next call. Every frame has passed
// checkFrame.
func (f *frameReader) next() ([]byte, error) {
	for {
		end, need, err := f.scan()
		if err != nil {
			return nil, err
		}
		if end > f.r {
			frames := f.buf[f.r:end]
			f.r = end
			return frames, nil
		}
		f.makeRoom(need)
		n, err := f.src.Read(f.buf[f.w:])
		f.w += n
		f.full = f.w == len(f.buf)
		if n == 0 && err != nil {
			if err == io.EOF && f.w > f.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// scan finds the end of the last whole frame, and how many bytes the one behind
// it takes.
func (f *frameReader) scan() (end, need int, err error) {
	end, f.controls = f.r, 0
	for {
		m, _, n, ok := nextFrame(f.buf[end:f.w])
		if !ok {
			return end, n, nil
		}
		if err := checkFrame(m); err != nil {
			return end, 0, err
		}
		if m[0] == msgControl {
			f.controls++
		}
		end += n
	}
}

// makeRoom moves the unread rest to the front of a buffer that fits the stream's
// present pace and has room for need bytes.
func (f *frameReader) makeRoom(need int) {
	rest := f.buf[f.r:f.w]
	switch {
	case f.large == nil && (f.full || need > smallBuffer):
		f.large = largeBuffers.Get().(*[largeBuffer]byte)
		f.buf = f.large[:]
	case f.large != nil && !f.full && len(rest) == 0 && f.w < smallBuffer:
		largeBuffers.Put(f.large)
		f.large, f.buf = nil, f.small
	case f.small == nil:
		f.small = make([]byte, smallBuffer)
		f.buf = f.small
	case len(rest) > 0 && len(f.buf)-f.r >= need && len(f.buf)-f.w >= smallBuffer/2:
		return // room enough behind
	}
	f.w = copy(f.buf, rest)
	f.r = 0
}
