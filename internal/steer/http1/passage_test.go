package http1

import (
	"errors"
	"io"
	"sync"
	"testing"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/http1/corpus"
)

// watched is a Passage for a port with rules, and what it tells.
func watched(t *testing.T, rules ...steer.Rule) (*Passage, *told) {
	t.Helper()
	set, err := steer.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	seen := new(told)
	return NewPassage(func() *steer.Port { return set.Port(steer.TCP, rules[0].Port) }, seen), seen
}

type told struct {
	sync.Mutex
	all []steer.Seen
}

func (s *told) Seen(one steer.Seen) {
	s.Lock()
	defer s.Unlock()
	s.all = append(s.all, one)
}

// All before the first request that is not the app's is passed on, and nothing of that
// one.
func TestPassageEndsBeforeWhatIsNotTheApps(t *testing.T) {
	const before = corpus.Plain + corpus.ChunkedHead + "3\r\nabc\r\n0\r\n\r\n" + corpus.Plain
	stops := []string{get("/", forAda), corpus.Plain[:len(corpus.Plain)-1], "GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"}
	for _, odd := range corpus.Odd {
		stops = append(stops, odd.Text)
	}
	for _, odd := range corpus.OddBodies {
		stops = append(stops, corpus.ChunkedHead+odd.Text)
	}
	for _, stop := range stops {
		p, seen := watched(t, steal())
		if n := p.FromClient([]byte(before + stop + corpus.Plain)); n != len(before) {
			t.Errorf("%.60q: %d bytes are passed on, want %d", stop, n, len(before))
		}
		if n := p.FromApp([]byte(ok + ok + ok + ok)); n != 3*len(ok) || len(seen.all) != 3 {
			t.Errorf("%.60q: %d bytes of answers are passed on and %d exchanges told of", stop, n, len(seen.all))
		}
	}
}

// An answer is passed on in whatever pieces it comes, and nothing behind it.
func TestPassageEndsWithTheLastAnswer(t *testing.T) {
	for _, r := range corpus.Responses {
		if r.Method == "CONNECT" || r.Status == 101 {
			continue
		}
		p, seen := watched(t, steal())
		p.FromClient([]byte(r.Method + " / HTTP/1.1\r\nHost: a\r\n\r\n"))
		for _, piece := range split(r.Text) {
			if p.FromApp([]byte(piece)) != 1 {
				t.Fatalf("%s: %q is not passed on", r.Name, piece)
			}
		}
		if p.FromApp([]byte(r.Rest+"x")) != 0 {
			t.Errorf("%s: more than the answer is passed on", r.Name)
		}
		if len(seen.all) != 1 || seen.all[0].Status != r.Status || seen.all[0].Out != int64(len(r.Text)) || seen.all[0].Err != nil {
			t.Errorf("%s: %+v", r.Name, seen.all)
		}
	}
}

// What can only end with the connection, or is odd, is for Serve from its first byte.
func TestPassageLeavesOddAnswers(t *testing.T) {
	odd := append([]string{"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		corpus.DoubtfulResponses...)
	for _, answer := range odd {
		p, seen := watched(t, steal())
		p.FromClient([]byte(corpus.Plain + corpus.Plain))
		if n := p.FromApp([]byte(ok + answer)); n != len(ok) {
			t.Errorf("%.60q: %d bytes are passed on", answer, n)
		}
		p.Ended(nil)
		if len(seen.all) != 2 || !errors.Is(seen.all[1].Err, io.ErrUnexpectedEOF) {
			t.Errorf("%.60q: %+v", answer, seen.all)
		}
	}
}
