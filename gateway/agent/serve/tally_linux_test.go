package serve

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// book has what was said from end to end: how often which pair of hashes, of what went
// up to the app and of what came down. What passes unchanged is in the same way in the
// books of both sides, who need not know which connection was whose.
type book struct {
	mu    sync.Mutex
	pairs map[string]int
	count int
	bytes atomic.Int64 // that connections moved, either way
}

func (b *book) enter(up, down hash.Hash) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pairs == nil {
		b.pairs = map[string]int{}
	}
	b.pairs[fmt.Sprintf("%x %x", up.Sum(nil), down.Sum(nil))]++
	b.count++
}

func (b *book) entries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// tally is one end of a connection. It hashes what it sends and what it gets, and
// enters that into a book when it is closed.
type tally struct {
	net.Conn
	bytes *atomic.Int64
	cut   *rand.Rand // by which what it sends goes in pieces; nil: as it is written
	enter func(sent, got hash.Hash)

	once      sync.Once
	mu        sync.Mutex
	sent, got hash.Hash
}

// tally is the end of a client or of the app. One that is framed is said anew on the
// way, so that bytes do not tell whether it is the same: it is not entered.
func (b *book) tally(c net.Conn, cut *rand.Rand, client, framed bool) *tally {
	t := &tally{Conn: c, bytes: &b.bytes, cut: cut, sent: sha256.New(), got: sha256.New()}
	switch {
	case framed:
		t.enter = func(_, _ hash.Hash) {}
	case client:
		t.enter = b.enter
	default:
		t.enter = func(sent, got hash.Hash) { b.enter(got, sent) }
	}
	return t
}

func (t *tally) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.note(t.got, b[:n])
	return n, err
}

func (t *tally) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		rest := b[n:]
		if t.cut != nil {
			rest = rest[:min(len(rest), 1+t.cut.IntN(1<<t.cut.IntN(16)))]
		}
		var m int
		m, err = t.Conn.Write(rest)
		t.note(t.sent, rest[:m])
		n += m
	}
	return n, err
}

func (t *tally) note(h hash.Hash, b []byte) {
	t.bytes.Add(int64(len(b)))
	t.mu.Lock()
	defer t.mu.Unlock()
	h.Write(b)
}

// CloseWrite says that no more is sent.
func (t *tally) CloseWrite() error { return t.Conn.(*net.TCPConn).CloseWrite() }

func (t *tally) Close() error {
	err := t.Conn.Close()
	t.once.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.enter(t.sent, t.got)
	})
	return err
}
