package steering

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

const (
	// maxHeard bounds a line of an agent: an error, and counts of all rules.
	maxHeard = 128 << 10
	// pace is the least time from one line of an agent to the next. Who sends
	// more waits.
	pace = 20 * time.Millisecond
	// maxError bounds what an agent says of its troubles, in bytes.
	maxError = 512
)

// session is a connection of an agent. What follows conn is under the Server's
// lock, but for sent, which is its writer's.
type session struct {
	key  key.Public
	addr netip.Addr
	conn net.Conn
	wake chan struct{} // of one: the Set may be another one
	said chan struct{} // of one: the agent has said something

	greeted bool
	report  Report
	since   map[string]int64 // by a rule's name, the first generation that had it
	sent    *control.Set
}

func newSession(k key.Public, from netip.Addr, conn net.Conn) *session {
	return &session{key: k, addr: from, conn: conn, wake: make(chan struct{}, 1), said: make(chan struct{}, 1)}
}

// note takes note of a Set that is about to be sent. It runs with the Server's
// lock held.
func (c *session) note(set *control.Set) {
	before := map[string]control.Rule{}
	if c.sent != nil {
		for _, r := range c.sent.Rules {
			before[r.Name] = r
		}
	}
	since := make(map[string]int64, len(set.Rules))
	counts := make(map[string]control.Counts, len(set.Rules))
	for _, r := range set.Rules {
		since[r.Name] = set.Generation
		if old, ok := before[r.Name]; ok {
			old.Here = r.Here
			if reflect.DeepEqual(old, r) {
				since[r.Name] = c.since[r.Name]
			}
		}
		if n, ok := c.report.Counts[r.Name]; ok {
			counts[r.Name] = n
		}
	}
	for _, name := range set.Egress {
		since[name] = set.Generation
		if c.sent != nil && slices.Contains(c.sent.Egress, name) {
			since[name] = c.since[name]
		}
	}
	c.since, c.sent = since, set
	c.report.Sent, c.report.Counts = set.Generation, counts
}

// take takes note of a line, of which nothing is believed but what fits the rules
// that the agent has. It runs with the Server's lock held.
func (c *session) take(m control.FromAgent) (news, counted bool) {
	r := &c.report
	g, text := min(max(m.Generation, r.Generation), r.Sent), line(m.Error)
	news = g != r.Generation || text != r.Error
	r.Generation, r.Error = g, text
	for name, n := range m.Counts {
		if _, ok := c.since[name]; ok && n != r.Counts[name] {
			r.Counts[name] = control.Counts{Matched: max(0, n.Matched), Failed: max(0, n.Failed), Passed: max(0, n.Passed)}
			counted = true
		}
	}
	return news, counted
}

// line makes an agent's words fit for a status and a log.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text[:min(len(text), maxError)])
	return strings.ToValidUTF8(text, "")
}

// serve speaks with an agent until one of both has enough.
func (s *Server) serve(ctx context.Context, c *session) {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	greeted := make(chan struct{})
	var why error
	reader.Go(func() {
		defer cancel()
		why = s.listen(ctx, c, greeted)
	})
	select {
	case <-greeted:
		s.speak(ctx, c)
	case <-ctx.Done():
	}
	cancel()
	_ = c.conn.Close()
	reader.Wait()
	stop()

	s.mu.Lock()
	was := c.greeted
	s.dropLocked(c.key, c)
	s.mu.Unlock()
	if was {
		s.log.Info("agent disconnected", "addr", c.addr, "key", c.key, "err", why)
	}
}

// listen reads what an agent says, and closes greeted after its first line.
func (s *Server) listen(ctx context.Context, c *session, greeted chan<- struct{}) error {
	limited := &io.LimitedReader{R: c.conn}
	r := control.NewReader(limited)
	var last time.Time
	for first := true; ; first = false {
		limited.N = maxHeard
		if err := c.conn.SetReadDeadline(time.Now().Add(control.Silence)); err != nil {
			return err
		}
		var m control.FromAgent
		if err := r.Read(&m); err != nil {
			return err
		}
		if early := pace - time.Since(last); early > 0 && !wake.After(ctx, early) {
			return nil
		}
		last = time.Now()
		if !s.hear(c, m) {
			return errors.New("not welcome any more")
		}
		if first {
			close(greeted)
		}
		wake.Up(c.said)
	}
}

// speak sends an agent its Sets, and between them answers what it says, or beats when
// it says nothing.
func (s *Server) speak(ctx context.Context, c *session) {
	alone := time.NewTimer(control.Alone)
	defer alone.Stop()
	var spoke time.Time
	for due := true; ; {
		m := control.ToAgent{Set: s.next(c)}
		if due || m.Set != nil {
			_ = c.conn.SetWriteDeadline(time.Now().Add(control.Silence)) // of a connection that is closed Write says so
			if err := control.Write(c.conn, m); err != nil {
				if errors.Is(err, control.ErrTooLong) {
					s.log.Error("agent cannot be told its rules", "addr", c.addr, "err", err)
				}
				return
			}
			alone.Reset(control.Alone)
			spoke = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-alone.C:
			due = true
		case <-c.said:
			due = time.Since(spoke) >= control.Hasty
		case <-c.wake:
			due = false
		}
	}
}
