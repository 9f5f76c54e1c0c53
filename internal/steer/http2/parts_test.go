package http2

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

var someFields = []hpack.HeaderField{{Name: "grpc-status", Value: "0"}}

// A queue gives what was put in, whatever the pieces, and counts what it drops.
func TestQueueKeepsBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q queue
	var in, out []byte
	for range 5000 {
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		q.addData(b, false)
		in = append(in, b...)
		for p := q.first(); p != nil && r.IntN(3) > 0; p = q.first() {
			n := min(len(p.data), r.IntN(5000))
			out = append(out, p.data[:n]...)
			if p.data = p.data[n:]; len(p.data) == 0 {
				q.pop()
			}
		}
	}
	left := len(in) - len(out)
	if body, weight := q.drop(); !bytes.HasPrefix(in, out) || body != left || weight != left {
		t.Errorf("%d bytes in, %d out, %d dropped (%d)", len(in), len(out), body, weight)
	}
}

func TestEndOfStreamIsNotMoved(t *testing.T) {
	for name, test := range map[string]struct {
		fill func(q *queue)
		want []bool // of each part: whether it ends the stream
	}{
		"trailers only":         {func(q *queue) { q.addFields(someFields, true) }, []bool{true}},
		"empty data behind":     {func(q *queue) { q.addFields(someFields, false); q.addData(nil, true) }, []bool{false, true}},
		"end comes late":        {func(q *queue) { q.addData([]byte("a"), false); q.addData(nil, true) }, []bool{true}},
		"data and trailers":     {func(q *queue) { q.addData([]byte("a"), false); q.addFields(someFields, true) }, []bool{false, true}},
		"end in the last chunk": {func(q *queue) { q.addData(make([]byte, maxFrame+1), true) }, []bool{false, true}},
	} {
		var q queue
		test.fill(&q)
		for i, p := range q.parts {
			if len(q.parts) != len(test.want) || p.end != test.want[i] {
				t.Errorf("%s: %d parts, part %d ends: %v", name, len(q.parts), i, p.end)
			}
		}
	}
}

func TestSmallFramesShareMemory(t *testing.T) {
	var q queue
	for range windowStart {
		q.addData([]byte{1}, false)
	}
	if n := len(q.parts); n != windowStart/maxFrame+1 {
		t.Errorf("a window of single bytes takes %d chunks", n)
	}
}

func TestCredit(t *testing.T) {
	c := credit{size: 1000, ceil: 4000, open: 1000}
	if !c.receive(1000) || c.receive(1) {
		t.Fatal("the window is not 1000 bytes")
	}
	if c.free(200) || !c.free(50) || c.give() != 250 || c.open != 250 {
		t.Errorf("a quarter is given at once: %+v", c)
	}
	// Nobody waits for what was never used up: no growth while bytes lie here.
	for range 100 {
		c.receive(c.open)
		c.free(250)
		c.give()
	}
	if c.size != 1000 {
		t.Errorf("a slow stream has %d", c.size)
	}
	for range 100 {
		c.receive(c.open)
		c.free(c.waiting())
		c.give()
	}
	if c.size != 4000 || c.open != 4000 {
		t.Errorf("a quick stream has %+v", c)
	}
	tiny := credit{size: 1, ceil: 1, open: 1}
	if !tiny.receive(1) || !tiny.free(1) || tiny.give() != 1 {
		t.Error("a window of one byte stops")
	}
}

// A client that never reads and opens and resets streams for ever gets no memory.
func TestStreamsThatAreGoneAreForgotten(t *testing.T) {
	s := newSession(t.Context(), nil, nil, nobody{})
	c := s.client
	for i := range 10 * maxStreams {
		st := c.newStreamLocked(uint32(2*i+1), new(exchange))
		st.listLocked()
		st.starved, st.owed = true, true
		c.starved, c.owed = append(c.starved, st), append(c.owed, st)
		st.removeLocked()
		if n := max(len(c.ready), len(c.starved), len(c.owed)); n > maxStreams || c.live != 0 {
			t.Fatalf("%d of %d streams are kept, %d live", n, i, c.live)
		}
	}
}

func TestTally(t *testing.T) {
	now := time.Unix(100, 0)
	var n noise
	for range maxNoise {
		if n.add(now) {
			t.Fatal("too early")
		}
	}
	if !n.add(now) {
		t.Error("too late")
	}
	n.content++
	for range noisePerFrame - 1 {
		if n.add(now) {
			t.Error("content does not count")
		}
	}
	if n.add(now.Add(floodTime + 1)) {
		t.Error("old noise counts")
	}
}
