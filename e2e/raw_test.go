//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file has both ends of raw connections in the test itself: what the one says,
// and when, follows what the other has heard.

// network is the file of a network namespace, of a machine or a pod. Sockets that are
// made in it stay there.
type network string

// do calls f in the network.
func (n network) do(f func() error) error {
	over := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends in the other network
		over <- func() error {
			ns, err := os.Open(string(n))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network %s: %w", n, err)
			}
			return f()
		}()
	}()
	return <-over
}

// laptopNetwork is the network of alice's laptop.
const laptopNetwork network = "/run/netns/podnet-lab-laptop"

// podsNetwork is the network of a pod on node1: that of any process in it, as the
// names that nodes give to networks are theirs alone.
func podsNetwork(t testing.TB, podIP string) network {
	t.Helper()
	pids := strings.Fields(node1.sh("ip netns pids " + netns(t, podIP)).must(t))
	if len(pids) == 0 {
		t.Fatalf("no process is in the network of %s", podIP)
	}
	return network("/proc/" + pids[0] + "/ns/net")
}

// listen listens in the network for the time of the test.
func (n network) listen(t testing.TB, addr string) *net.TCPListener {
	t.Helper()
	var l net.Listener
	err := n.do(func() (err error) {
		l, err = net.Listen("tcp4", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// dial connects from the network.
func (n network) dial(ctx context.Context, protocol, addr string) (c net.Conn, err error) {
	err = n.do(func() (err error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err = d.DialContext(ctx, protocol, addr)
		return err
	})
	return c, err
}

// How a connection's other end said that no more comes.
const (
	fin = "FIN"
	rst = "RST"
)

// side is one end of a connection, and what it hears.
type side struct {
	conn *net.TCPConn
	news chan struct{}

	mu    sync.Mutex
	heard []byte
	ended string // how; "": it has not
}

func newSide(c *net.TCPConn) *side {
	s := &side{conn: c, news: make(chan struct{}, 1)}
	go s.listen()
	return s
}

func (s *side) listen() {
	b := make([]byte, 64<<10)
	for {
		n, err := s.conn.Read(b)
		s.mu.Lock()
		s.heard = append(s.heard, b[:n]...)
		switch {
		case err == io.EOF:
			s.ended = fin
		case errors.Is(err, syscall.ECONNRESET):
			s.ended = rst
		case errors.Is(err, net.ErrClosed): // by itself
		case err != nil:
			s.ended = err.Error()
		}
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// hears waits until n bytes were heard, and also the end if there is to be one. It
// reports false when less comes, or ctx is over first.
func (s *side) hears(ctx context.Context, n int, end bool) bool {
	for {
		s.mu.Lock()
		all, over := len(s.heard) >= n, s.ended != ""
		s.mu.Unlock()
		if over || all && !end {
			return all
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			return false
		}
	}
}

// turn is what one end of a connection does, after it has heard all that the other
// one has said before.
type turn struct {
	app  bool     // it is the app's; else the client's
	says []string // one after the other
	ends string   // the direction; "": not yet
}

func fromClient(says ...string) turn { return turn{says: says} }
func fromApp(says ...string) turn    { return turn{app: true, says: says} }
func (t turn) then(e string) turn    { t.ends = e; return t }

// conversation is a name and the turns of a client and an app. The app begins with
// accepting the connection.
type conversation struct {
	name  string
	turns []turn
}

// said is all that one of both says.
func (c conversation) said(byApp bool) (text string) {
	for _, t := range c.turns {
		if t.app == byApp {
			text += strings.Join(t.says, "")
		}
	}
	return text
}

// outcome is what came of a conversation.
type outcome struct {
	atApp, atClient       string
	appEnded, clientEnded string // how they heard that the other one has ended
	stuck                 string // what did not come; "": all did
}

func (o outcome) String() string {
	return fmt.Sprintf("app heard %.300q (%d bytes) and %q, client heard %.300q (%d bytes) and %q %s",
		o.atApp, len(o.atApp), o.appEnded, o.atClient, len(o.atClient), o.clientEnded, o.stuck)
}

// apart is the pause between the pieces of what is said, so that most are read one by
// one. Nothing depends on it.
const apart = 100 * time.Microsecond

// hold holds the conversation.
func (c conversation) hold(client, app *net.TCPConn) outcome {
	const patience = 8 * time.Second // a head may take 2 s before it is passed on
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sides := map[bool]*side{false: newSide(client), true: newSide(app)}
	said := map[bool]int{}
	ended := map[bool]bool{}
	var stuck string
	for i, t := range c.turns {
		me, other := sides[t.app], !t.app
		if !me.hears(ctx, said[other], ended[other]) {
			stuck = fmt.Sprintf("before turn %d", i+1)
			break
		}
		for j, piece := range t.says {
			if j > 0 {
				time.Sleep(apart)
			}
			if _, err := io.WriteString(me.conn, piece); err != nil {
				stuck = fmt.Sprintf("in turn %d: %v", i+1, err)
				break
			}
			said[t.app] += len(piece)
		}
		switch t.ends {
		case fin:
			_ = me.conn.CloseWrite()
		case rst:
			_ = me.conn.SetLinger(0)
			_ = me.conn.Close()
		}
		ended[t.app] = ended[t.app] || t.ends != ""
	}
	for who, s := range sides {
		if stuck == "" && !s.hears(ctx, said[!who], ended[!who]) {
			stuck = "at the end"
		}
	}
	o := outcome{stuck: stuck}
	o.atClient, o.clientEnded = sides[false].over()
	o.atApp, o.appEnded = sides[true].over()
	return o
}

// over closes the side and tells what it has heard.
func (s *side) over() (heard, ended string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
	return string(s.heard), s.ended
}
