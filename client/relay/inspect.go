package relay

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"podnet.dev/client/words"
)

// inspection is a connection that is being kept, as exchanges: a new one begins
// when the pod speaks after the local program has. Of a long connection the last
// ones are kept.
type inspection struct {
	pod    Pod
	began  time.Time
	replay time.Time

	mu        sync.Mutex
	exchanges []Exchange
	in, out   int  // bytes that they hold
	answered  bool // the local program was the last to speak
	forgotten int64
	over      bool
	unseen    bool // nobody will see it: nothing is kept
}

// heard keeps what the pod sent.
func (i *inspection) heard(p []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.unseen {
		return
	}
	if len(i.exchanges) == 0 || i.answered && !owes(i.lastLocked()) {
		i.beginLocked()
	}
	e := i.lastLocked()
	i.in += keep(&e.In, &e.InMore, p)
	i.trimLocked()
}

// owes says that a request of HTTP/1 goes on: the local program has answered before it
// had all of it.
func owes(e *Exchange) bool {
	if e.InMore > 0 || words.FirstLine(e.In) == "" || !bytes.Contains(e.In, []byte("\r\n\r\n")) {
		return false
	}
	_, err := whole(e.In)
	return errors.Is(err, io.ErrUnexpectedEOF)
}

// said keeps what the local program answered, or what it said by itself.
func (i *inspection) said(p []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.unseen {
		return
	}
	if len(i.exchanges) == 0 {
		i.beginLocked()
	}
	i.answered = true
	e := i.lastLocked()
	i.out += keep(&e.Out, &e.OutMore, p)
	i.trimLocked()
}

func (i *inspection) beginLocked() {
	i.exchanges = append(i.exchanges, Exchange{Began: time.Now()})
	i.answered = false
}

func (i *inspection) lastLocked() *Exchange { return &i.exchanges[len(i.exchanges)-1] }

// trimLocked forgets the oldest exchanges of a connection that has too many.
func (i *inspection) trimLocked() {
	for len(i.exchanges) > 1 && (i.in > InspectBytes || i.out > InspectBytes || len(i.exchanges) > InspectExchanges) {
		i.in -= len(i.exchanges[0].In)
		i.out -= len(i.exchanges[0].Out)
		i.exchanges = slices.Delete(i.exchanges, 0, 1)
		i.forgotten++
	}
}

// keep appends to b what there is room for, counts the rest in more, and returns
// how many bytes it has appended.
func keep(b *[]byte, more *int64, p []byte) int {
	n := min(len(p), InspectBytes-len(*b))
	*b = append(*b, p[:n]...)
	*more += int64(len(p) - n)
	return n
}

// forget drops what is kept, and has nothing more be: the connection may go on.
func (i *inspection) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.unseen, i.exchanges, i.forgotten = true, nil, 0
}

func (i *inspection) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
}

func (i *inspection) seen() Inspection {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := Inspection{Namespace: i.pod.Namespace, Pod: i.pod.Name, Began: i.began, Replay: i.replay, Forgotten: i.forgotten, Over: i.over}
	for _, e := range i.exchanges {
		e.In, e.Out = slices.Clone(e.In), slices.Clone(e.Out)
		out.Exchanges = append(out.Exchanges, e)
	}
	return out
}

// inspect begins to keep a connection of a rule; the oldest is forgotten. t is asked
// for while nobody can forget the rule.
func (s *state) inspect(rule string, i *inspection, t func() *table) *inspection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t().has(rule) {
		i.forget()
		return i
	}
	list := append(s.inspections[rule], i)
	if len(list) > InspectConns {
		list[0].forget()
		list = slices.Delete(list, 0, 1)
	}
	s.inspections[rule] = list
	return i
}

// Inspected are the last InspectConns connections of a rule that asks for it,
// newest last.
func (r *Relay) Inspected(rule string) []Inspection {
	r.state.mu.Lock()
	list := slices.Clone(r.state.inspections[rule])
	r.state.mu.Unlock()
	var out []Inspection
	for _, i := range list {
		out = append(out, i.seen())
	}
	return out
}
