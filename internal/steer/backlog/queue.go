package backlog

const (
	// smallChunk is what a queue takes at least: a small request, or several.
	smallChunk = 4 << 10
	largeChunk = 32 << 10
)

// Queue is bytes that wait for a laptop, in their order. However small the parts
// are in which they come, it costs no more than it takes of its Budget. It is not
// safe for concurrent use.
type Queue struct {
	budget *Budget
	most   int
	chunks [][]byte // the last one is filled up first
	taken  int      // of the budget
	spare  []byte   // a small chunk that was given back
}

// NewQueue returns an empty Queue that takes at most so many bytes of a Budget.
func NewQueue(b *Budget, most int) *Queue { return &Queue{budget: b, most: most} }

// Add copies b to the end. When it reports false there was no room for all of it,
// and the queue is of no use any more.
func (q *Queue) Add(b []byte) bool {
	for len(b) > 0 {
		last := len(q.chunks) - 1
		if last < 0 || len(q.chunks[last]) == cap(q.chunks[last]) {
			if !q.grow(len(b)) {
				return false
			}
			last++
		}
		c := &q.chunks[last]
		n := min(len(b), cap(*c)-len(*c))
		*c = append(*c, b[:n]...)
		b = b[n:]
	}
	return true
}

// grow adds an empty chunk for n bytes, or for some of them.
func (q *Queue) grow(n int) bool {
	size := min(max(n, smallChunk), largeChunk)
	if q.taken+size > q.most || !q.budget.Take(size) {
		return false
	}
	q.taken += size
	c := q.spare
	if q.spare = nil; cap(c) != size {
		c = make([]byte, 0, size)
	}
	q.chunks = append(q.chunks, c)
	return true
}

// Next removes the first bytes, a good many at once; nil: there are none. They are
// the caller's until it hands them to Reuse.
func (q *Queue) Next() []byte {
	if len(q.chunks) == 0 {
		return nil
	}
	b := q.chunks[0]
	q.chunks[0] = nil
	if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
		q.chunks = nil
	}
	q.give(cap(b))
	return b
}

// Reuse takes back what Next returned.
func (q *Queue) Reuse(b []byte) {
	if cap(b) == smallChunk {
		q.spare = b[:0]
	}
}

// Drop forgets all that waits.
func (q *Queue) Drop() {
	q.give(q.taken)
	q.chunks, q.spare = nil, nil
}

func (q *Queue) give(n int) {
	q.taken -= n
	q.budget.Give(n)
}
