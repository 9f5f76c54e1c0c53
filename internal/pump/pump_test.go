//go:build linux

package pump

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

// flow passes everything but the bytes behind the first "!" of either side.
type flow struct {
	t     *testing.T
	held  [2]bool
	left  chan leaving
	ended chan error
}

type leaving struct {
	client, app         *net.TCPConn
	fromClient, fromApp string
}

func (f *flow) FromClient(b []byte) int { return f.see(0, b) }
func (f *flow) FromApp(b []byte) int    { return f.see(1, b) }

func (f *flow) see(side int, b []byte) int {
	if f.held[side] {
		f.t.Errorf("shown %q behind what was held back", b)
	}
	at := bytes.IndexByte(b, '!')
	if at < 0 {
		return len(b)
	}
	f.held[side] = true
	return at
}

func (f *flow) Left(client, app *net.TCPConn, fromClient, fromApp []byte) {
	f.left <- leaving{client, app, string(fromClient), string(fromApp)}
}

func (f *flow) Ended(err error) { f.ended <- err }

// town is a pump that runs.
type town struct {
	t *testing.T
	*Pump
	close func()
}

func newTown(t *testing.T) *town {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	town := &town{t, p, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(town.close)
	return town
}

// pair has the pump join two connections, and returns their outer ends.
func (w *town) pair(first string) (client, app *net.TCPConn, f *flow) {
	w.t.Helper()
	client, a := connect(w.t)
	app, b := connect(w.t)
	f = &flow{t: w.t, left: make(chan leaving, 1), ended: make(chan error, 1)}
	if err := w.Add(a, b, []byte(first), f); err != nil {
		w.t.Fatal(err)
	}
	return client, app, f
}

func connect(t *testing.T) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func (w *town) want(c *net.TCPConn, text string) {
	w.t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		w.t.Fatalf("%q, %v; want %q", b, err, text)
	}
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

func TestBytesPassBothWays(t *testing.T) {
	w := newTown(t)
	client, app, f := w.pair("first ")
	w.want(app, "first ")
	for range 100 {
		io.WriteString(client, "ping")
		w.want(app, "ping")
		io.WriteString(app, "pong")
		w.want(client, "pong")
	}
	client.CloseWrite()
	if b, err := io.ReadAll(app); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	io.WriteString(app, "bye") // a client that has said all still listens
	app.Close()
	if b, err := io.ReadAll(client); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := await(t, f.ended); err != nil {
		t.Error(err)
	}
}

// All arrives, also what nobody takes for a while, and what both send at once.
func TestMuchPassesBothWays(t *testing.T) {
	w := newTown(t)
	var all sync.WaitGroup
	for range 8 {
		client, app, f := w.pair("")
		said := make([]byte, 4<<20)
		for i := range said {
			said[i] = 'a' + byte(rand.UintN(26))
		}
		for _, c := range []*net.TCPConn{client, app} {
			all.Go(func() {
				time.Sleep(time.Duration(rand.IntN(int(20 * time.Millisecond)))) // while the other one fills all buffers
				if got, err := io.ReadAll(io.LimitReader(c, int64(len(said)))); err != nil || !bytes.Equal(got, said) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
			all.Go(func() {
				for rest := said; len(rest) > 0; {
					n := min(len(rest), 1+rand.IntN(200<<10))
					if _, err := c.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
			})
		}
		all.Go(func() {
			select {
			case err := <-f.ended:
				t.Error("ended", err)
			case <-f.left:
				t.Error("left")
			default:
			}
		})
	}
	all.Wait()
}

// What the flow does not want passed goes with it, and the rest has gone before.
func TestFlowLeaves(t *testing.T) {
	w := newTown(t)
	for range 50 {
		client, app, f := w.pair("")
		io.WriteString(client, "abc!def")
		l := await(t, f.left)
		if l.fromClient != "!def" || l.fromApp != "" {
			t.Fatalf("%+v", l)
		}
		w.want(app, "abc")
		io.WriteString(client, "ghi") // which the pump has nothing to do with any more
		w.want(l.client, "ghi")
		io.WriteString(l.app, "jkl")
		w.want(app, "jkl")
		l.client.Close()
		l.app.Close()
		if b, err := io.ReadAll(client); len(b) > 0 || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// A flow that leaves has first got all that was passed on, however slowly it is taken.
func TestFlowLeavesBehindWhatWaits(t *testing.T) {
	w := newTown(t)
	client, app, f := w.pair("")
	const size = 8 << 20
	go func() {
		app.Write(bytes.Repeat([]byte("x"), size))
		io.WriteString(app, "!rest")
	}()
	time.Sleep(50 * time.Millisecond)
	select {
	case <-f.left:
		t.Fatal("left while the client reads nothing")
	default:
	}
	if _, err := io.CopyN(io.Discard, client, size); err != nil {
		t.Fatal(err)
	}
	if l := await(t, f.left); l.fromApp != "!rest" {
		t.Errorf("%q", l.fromApp)
	}
}

// The app's end is for whoever knows what it means.
func TestAppEndsFirst(t *testing.T) {
	w := newTown(t)
	client, app, f := w.pair("")
	io.WriteString(app, "last words")
	app.Close()
	w.want(client, "last words")
	l := await(t, f.left)
	if _, err := l.app.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
}

func TestBrokenConnectionBreaksTheOther(t *testing.T) {
	w := newTown(t)
	for _, breaks := range []int{0, 1} {
		client, app, f := w.pair("a")
		w.want(app, "a")
		ends := []*net.TCPConn{client, app}
		ends[breaks].SetLinger(0)
		ends[breaks].Close()
		if _, err := ends[1-breaks].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d: %v", breaks, err)
		}
		if err := await(t, f.ended); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d: %v", breaks, err)
		}
	}
}

// A read stops at urgent data, and what is behind it passes all the same.
func TestUrgentDataHoldsNothingBack(t *testing.T) {
	w := newTown(t)
	client, app, _ := w.pair("")
	raw, _ := client.SyscallConn()
	raw.Control(func(fd uintptr) {
		syscall.Write(int(fd), []byte("abc"))
		syscall.Sendto(int(fd), []byte("u"), syscall.MSG_OOB, nil)
		syscall.Write(int(fd), []byte("def"))
	})
	w.want(app, "abcdef")
}

func TestClosedPumpEndsAll(t *testing.T) {
	w := newTown(t)
	client, app, f := w.pair("a")
	w.want(app, "a")
	w.close()
	if err := await(t, f.ended); err != ErrClosed {
		t.Error(err)
	}
	for _, c := range []*net.TCPConn{client, app} {
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	a, b := connect(t)
	if err := w.Add(a, b, nil, f); err != ErrClosed {
		t.Error(err)
	}
}
