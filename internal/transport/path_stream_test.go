package transport

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
)

func newProbeKey(t testing.TB) probe.Key {
	t.Helper()
	var ks [2]key.Private
	for i := range ks {
		var err error
		if ks[i], err = key.NewPrivate(); err != nil {
			t.Fatal(err)
		}
	}
	k, err := probe.NewKey(ks[0], ks[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// farEnd is a gateway at the other end of pipes. It answers pings and gives
// what else it hears to data.
type farEnd struct {
	key      probe.Key
	data     func(m []byte)
	silent   atomic.Bool // hears, and says nothing
	draining atomic.Bool

	mu    sync.Mutex
	dials int
	conns []net.Conn
}

func (f *farEnd) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	f.mu.Lock()
	f.dials++
	f.conns = append(f.conns, far)
	f.mu.Unlock()
	go f.serve(far)
	return near, nil
}

func (f *farEnd) dialled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

func (f *farEnd) last() net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[len(f.conns)-1]
}

func (f *farEnd) serve(c net.Conn) {
	if err := greet(c, true); err != nil {
		return
	}
	r := frameReader{src: c}
	for {
		frames, err := r.next()
		if err != nil {
			return
		}
		for len(frames) > 0 {
			m, rest, _, _ := nextFrame(frames)
			frames = rest
			p, err := f.key.Open(m)
			switch {
			case err == nil && !f.silent.Load():
				pong := f.key.Append(nil, probe.Message{
					Kind: probe.Pong, FromGateway: true, Draining: f.draining.Load(), TxID: p.TxID, Size: p.Size,
				})
				if _, err := c.Write(appendFrame(nil, pong)); err != nil {
					return
				}
			case m[0] != msgControl && f.data != nil:
				f.data(bytes.Clone(m))
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		failures  int
		low, high time.Duration
	}{
		{0, 75 * time.Millisecond, 125 * time.Millisecond},
		{1, 150 * time.Millisecond, 250 * time.Millisecond},
		{5, 2250 * time.Millisecond, 3750 * time.Millisecond},
		{1000, 2250 * time.Millisecond, 3750 * time.Millisecond},
	} {
		if got := backoff(c.failures, 0); got != c.low {
			t.Errorf("shortest pause after %d failures is %v, want %v", c.failures, got, c.low)
		}
		if got := backoff(c.failures, 1); got != c.high {
			t.Errorf("longest pause after %d failures is %v, want %v", c.failures, got, c.high)
		}
	}
}

func TestDialIsRepeatedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		far := &farEnd{key: newProbeKey(t)}
		boom := errors.New("no such pod")
		tries := 0
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: func(ctx context.Context) (net.Conn, error) {
			if tries++; tries < 5 {
				return nil, boom
			}
			return far.dial(ctx)
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var none *NoPathError
		if err := g.Wait(ctx); !errors.As(err, &none) || !errors.Is(err, boom) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no such pod") {
			t.Errorf("while dialling: %v", err)
		}
		if st := g.Status(); st.Active.Kind != "" || len(st.Paths) != 1 || st.Paths[0].Live {
			t.Errorf("while dialling: %+v", st)
		}
		start := time.Now()
		if err := g.Wait(t.Context()); err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if s := g.Status().Active; !s.Live || s.Kind != APIServer || s.Redials != 0 || tries != 5 {
			t.Errorf("after %d dials: %+v", tries, s)
		}
		g.Close()
		if _, err := b.ParseEndpoint(g.Endpoint()); err == nil {
			t.Error("a closed gateway is still an endpoint")
		}
		if err := g.Wait(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed gateway: %v", err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The last of what is sent while there is no path arrives when there is one, in
// order; what has waited too long does not.
func TestDatagramsWaitForThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		var mu sync.Mutex
		var got [][]byte
		far := &farEnd{key: newProbeKey(t), data: func(m []byte) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, m)
		}}
		open := make(chan struct{})
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: func(ctx context.Context) (net.Conn, error) {
			<-open
			return far.dial(ctx)
		}})
		defer g.Close()
		g.send([][]byte{message(100, 1)}, nil) // stale when the next comes
		time.Sleep(heldFor + time.Second)
		initiation := append([]byte{msgInitiation, 0, 0, 0}, make([]byte, initiationSize-4)...)
		g.send([][]byte{message(100, 2), message(100, 3)}, nil) // no room for them either
		g.send([][]byte{initiation}, nil)
		for i := range byte(200) { // more than is kept
			g.send([][]byte{message(100, 10+i)}, nil)
		}
		close(open)
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		initiations, order := 0, byte(10+200-heldMax)
		mu.Lock()
		defer mu.Unlock()
		for _, m := range got {
			switch {
			case bytes.Equal(m, initiation):
				initiations++
			case bytes.Equal(m, message(100, order)):
				order++
			default:
				t.Fatalf("unexpected %x", m)
			}
		}
		if initiations != 1 || order != 10+200 {
			t.Errorf("%d initiations, data up to %d", initiations, order)
		}
	})
}

// A stream that says nothing any more, though it stands, is found within 5 s.
func TestMuteStreamIsDialledAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		far := &farEnd{key: newProbeKey(t)}
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: far.dial})
		defer g.Close()
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := far.dialled(); n != 1 {
			t.Fatalf("a good stream was dialled %d times", n)
		}
		far.silent.Store(true)
		start := time.Now()
		for far.dialled() < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(start); d > 5500*time.Millisecond { // a ping a second
			t.Errorf("dialled anew after %v", d)
		}
		if st := g.Status(); st.Active.Kind != "" || st.Paths[0].LastError == nil {
			t.Errorf("status = %+v", st)
		}
		far.silent.Store(false)
		start = time.Now()
		if err := g.Wait(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("%v, after %v", err, time.Since(start))
		}
	})
}

// After a change of network the stream may be dead without knowing. A second
// one is dialled beside it; one that works is left alone.
func TestDoubtedStreamGoesOnUntilTheNewOneStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		far := &farEnd{key: newProbeKey(t)}
		open := make(chan struct{})
		close(open)
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: func(ctx context.Context) (net.Conn, error) {
			<-open
			return far.dial(ctx)
		}})
		defer g.Close()
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.Rouse()
		time.Sleep(5 * time.Second)
		if n := far.dialled(); n != 1 {
			t.Fatalf("a good stream was dialled %d times", n)
		}
		old := far.last()
		open = make(chan struct{})
		far.silent.Store(true)
		g.Rouse()
		time.Sleep(700 * time.Millisecond)
		far.silent.Store(false) // it was only slow
		time.Sleep(300 * time.Millisecond)
		if st := g.Status(); st.Active.Kind != APIServer || st.Active.Redials != 0 {
			t.Errorf("while the second is dialled: %+v", st)
		}
		close(open)
		synctest.Wait()
		if st := g.Status(); st.Active.Kind != APIServer || st.Active.Redials != 1 {
			t.Errorf("with the second: %+v", st)
		}
		if _, err := old.Write([]byte{0}); err == nil {
			t.Error("the old stream is still there")
		}
		time.Sleep(time.Minute)
		if n := far.dialled(); n != 2 {
			t.Errorf("dialled %d times", n)
		}
	})
}

// A laptop that has waited for the network does not wait for the back-off as
// well.
func TestRouseCutsTheBackoffShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		far := &farEnd{key: newProbeKey(t)}
		var up atomic.Bool
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: func(ctx context.Context) (net.Conn, error) {
			if !up.Load() {
				return nil, errors.New("network is unreachable")
			}
			return far.dial(ctx)
		}})
		defer g.Close()
		time.Sleep(time.Minute)
		up.Store(true)
		g.Rouse()
		start := time.Now()
		if err := g.Wait(t.Context()); err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%v, after %v", err, time.Since(start))
		}
	})
}

func TestGatewayTellsThatItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		far := &farEnd{key: newProbeKey(t)}
		g := b.NewGateway(GatewayConfig{Key: far.key, Stream: far.dial})
		defer g.Close()
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for len(g.Changed()) > 0 {
			<-g.Changed()
		}
		time.Sleep(10 * time.Second)
		if len(g.Changed()) != 0 {
			t.Error("changes are told of where there are none")
		}
		far.draining.Store(true)
		<-g.Changed()
		if !g.Status().Draining {
			t.Errorf("status = %+v", g.Status())
		}
	})
}
