package main

import (
	"encoding/binary"
	"io"
)

// Blob is size bytes, the same on every machine and for every run, that no
// network can compress and no shifted or repeated block can pass for: word i
// is a mix of i.
func Blob(size int64) io.Reader {
	return io.LimitReader(&blob{}, size)
}

type blob struct {
	next uint64  // the word to make next
	left []byte  // what is left of the last word
	word [8]byte // backing of left
}

func (b *blob) Read(p []byte) (int, error) {
	n := copy(p, b.left)
	b.left = b.left[n:]
	for len(p)-n >= 8 {
		binary.LittleEndian.PutUint64(p[n:], mix(b.next))
		b.next++
		n += 8
	}
	if n < len(p) {
		binary.LittleEndian.PutUint64(b.word[:], mix(b.next))
		b.next++
		k := copy(p[n:], b.word[:])
		b.left = b.word[k:]
		n += k
	}
	return n, nil
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood 2014).
func mix(i uint64) uint64 {
	z := (i + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
