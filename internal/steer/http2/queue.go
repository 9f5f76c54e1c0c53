package http2

import (
	"sync"

	"golang.org/x/net/http2/hpack"
)

// part is a header block or a piece of a body.
type part struct {
	fields []hpack.HeaderField // of a block; nil: data
	data   []byte              // what is not sent yet, in chunk
	chunk  *chunk
	end    bool // END_STREAM goes with the last byte
}

// weight is how many bytes of memory a part stands for, about.
func (p *part) weight() int {
	n := len(p.data)
	for _, f := range p.fields {
		n += int(f.Size())
	}
	return n
}

// chunk is where data waits. Small frames share one, so that a window full of
// one-byte frames takes no more memory than one of large frames.
type chunk [maxFrame]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// queue is what waits to be sent on a stream, in order. How frames were cut is
// forgotten, as it means nothing (RFC 9113, section 6.1); what ends the stream is
// not: gRPC tells a header block that ends it from one before an empty DATA.
type queue struct{ parts []part }

func (q *queue) first() *part {
	if len(q.parts) == 0 {
		return nil
	}
	return &q.parts[0]
}

func (q *queue) last() *part {
	if len(q.parts) == 0 {
		return nil
	}
	return &q.parts[len(q.parts)-1]
}

func (q *queue) addFields(fields []hpack.HeaderField, end bool) {
	q.parts = append(q.parts, part{fields: fields, end: end})
}

// addData copies b to the end of the queue.
func (q *queue) addData(b []byte, end bool) {
	for len(b) > 0 {
		p := q.last()
		if p == nil || p.chunk == nil || len(p.data) == cap(p.data) {
			c := chunks.Get().(*chunk)
			q.parts = append(q.parts, part{chunk: c, data: c[:0]})
			p = q.last()
		}
		n := min(len(b), cap(p.data)-len(p.data))
		p.data = append(p.data, b[:n]...)
		b = b[n:]
	}
	if !end {
		return
	}
	if p := q.last(); p != nil && p.fields == nil {
		p.end = true
		return
	}
	q.parts = append(q.parts, part{end: true})
}

// pop removes the first part.
func (q *queue) pop() {
	if c := q.parts[0].chunk; c != nil {
		chunks.Put(c)
	}
	n := copy(q.parts, q.parts[1:])
	q.parts[n] = part{}
	q.parts = q.parts[:n]
}

// drop empties the queue. It returns how many bytes of bodies were in it, and
// the weight of all.
func (q *queue) drop() (body, weight int) {
	for i := range q.parts {
		p := &q.parts[i]
		body += len(p.data)
		weight += p.weight()
		if p.chunk != nil {
			chunks.Put(p.chunk)
		}
	}
	q.parts = nil
	return body, weight
}
