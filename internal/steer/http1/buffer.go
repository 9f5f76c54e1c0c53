package http1

import (
	"io"
	"sync"

	"podnet.dev/internal/steer"
)

const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// buffer holds bytes that were read and are not used yet. It is small while
// little comes, since most connections of a pod are idle at any time.
type buffer struct {
	b     []byte
	r, w  int // b[r:w] are the bytes
	large *[largeBuffer]byte
	full  bool // the last read filled b
}

func newBuffer(first []byte) buffer {
	b := buffer{b: make([]byte, max(smallBuffer, len(first)))}
	b.w = copy(b.b, first)
	b.full = b.w == len(b.b)
	return b
}

func (b *buffer) bytes() []byte { return b.b[b.r:b.w] }

func (b *buffer) skip(n int) { b.r += n }

// fill reads once, and makes room before it if there is none.
func (b *buffer) fill(from io.Reader) error {
	b.makeRoom()
	n, err := from.Read(b.b[b.w:])
	b.w += n
	b.full = b.w == len(b.b)
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

func (b *buffer) makeRoom() {
	held := b.bytes()
	switch {
	case len(held) > 0 && b.w < len(b.b):
		return
	case len(held) == 0 && !b.full:
		if len(b.b) != smallBuffer {
			b.free()
			b.b = make([]byte, smallBuffer)
		}
	case len(held) < largeBuffer:
		if b.large == nil && b.full {
			b.large = largeBuffers.Get().(*[largeBuffer]byte)
			b.b = b.large[:]
		}
	default:
		b.b = make([]byte, max(steer.MaxHead, len(held)+smallBuffer))
	}
	b.r, b.w = 0, copy(b.b, held)
	if b.large != nil && &b.b[0] != &b.large[0] {
		largeBuffers.Put(b.large)
		b.large = nil
	}
}

// free gives back what others can use.
func (b *buffer) free() {
	if b.large != nil {
		largeBuffers.Put(b.large)
	}
	*b = buffer{}
}
