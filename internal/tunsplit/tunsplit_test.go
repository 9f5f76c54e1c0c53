//go:build unix

package tunsplit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	hers = netip.MustParseAddr("fd70:6f64:6e65:7403::1")
	new6 = netip.MustParseAddr("fd70:6f64:6e65:7403::2")
	host = netip.MustParseAddr("fd70:6f64:6e65:7400::1")
)

// fake is a device whose packets are sent and received by the test.
type fake struct {
	send   chan []byte // to be read
	got    chan []byte // written
	events chan tun.Event
	closed chan struct{}
	once   sync.Once
}

func newFake() *fake {
	return &fake{
		send: make(chan []byte, 64), got: make(chan []byte, 1024), events: make(chan tun.Event), closed: make(chan struct{}),
	}
}

func (f *fake) File() *os.File           { return nil }
func (f *fake) Name() (string, error)    { return "fake", nil }
func (f *fake) MTU() (int, error)        { return 1280, nil }
func (f *fake) Events() <-chan tun.Event { return f.events }
func (f *fake) BatchSize() int           { return 8 }

// Read returns what waits, up to a batch.
func (f *fake) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := 0
	select {
	case p := <-f.send:
		sizes[0], n = copy(bufs[0][offset:], p), 1
	case <-f.closed:
		return 0, os.ErrClosed
	}
	for n < min(len(bufs), f.BatchSize()) {
		select {
		case p := <-f.send:
			sizes[n] = copy(bufs[n][offset:], p)
			n++
		default:
			return n, nil
		}
	}
	return n, nil
}

func (f *fake) Write(bufs [][]byte, offset int) (int, error) {
	select {
	case <-f.closed:
		return 0, os.ErrClosed
	default:
	}
	for _, b := range bufs {
		f.got <- slices.Clone(b[offset:])
	}
	return len(bufs), nil
}

func (f *fake) Close() error {
	f.once.Do(func() {
		close(f.closed)
		close(f.events)
	})
	return nil
}

// packetTo is an IPv6 packet that carries its number.
func packetTo(to netip.Addr, number, size int) []byte {
	p := make([]byte, 40+size)
	p[0] = 0x60
	a := to.As16()
	copy(p[24:], a[:])
	binary.BigEndian.PutUint32(p[40:], uint32(number))
	return p
}

func number(p []byte) int { return int(binary.BigEndian.Uint32(p[40:])) }

// outers are the ways in which an outer device can be read.
var outers = map[string]func(testing.TB) (dev tun.Device, send func([]byte), got func() []byte){
	"lane": func(testing.TB) (tun.Device, func([]byte), func() []byte) {
		f := newFake()
		return f, func(p []byte) { f.send <- p }, func() []byte { return <-f.got }
	},
	"direct": newFiled,
}

const offset = 16

func room(n int) (bufs [][]byte, sizes []int) {
	bufs = make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	return bufs, make([]int, n)
}

func TestEachGetsItsOwn(t *testing.T) {
	for name, newOuter := range outers {
		t.Run(name, func(t *testing.T) {
			outer, _, outerGot := newOuter(t)
			inner := newFake()
			d := New(outer, inner, netip.Addr{})
			defer d.Close()
			write := func(numbers ...int) {
				t.Helper()
				var bufs [][]byte
				for _, n := range numbers {
					to := []netip.Addr{host, hers, new6}[n%3]
					bufs = append(bufs, append(make([]byte, offset), packetTo(to, n, 4)...))
				}
				if n, err := d.Write(bufs, offset); n != len(bufs) || err != nil {
					t.Fatalf("write: %d, %v", n, err)
				}
			}
			want := func(who string, got func() []byte, numbers ...int) {
				t.Helper()
				for _, n := range numbers {
					if g := number(got()); g != n {
						t.Errorf("the %s got packet %d, want %d", who, g, n)
					}
				}
			}
			innerGot := func() []byte { return <-inner.got }
			write(0, 1, 2)
			want("outer", outerGot, 0, 1, 2)
			d.SetAddr(hers)
			write(0, 1, 2, 3, 4, 5, 7)
			want("outer", outerGot, 0, 2, 3, 5)
			want("inner", innerGot, 1, 4, 7)
			d.SetAddr(new6)
			write(1, 2, 3)
			want("outer", outerGot, 1, 3)
			want("inner", innerGot, 2)
			inner.Close()
			write(1, 2, 3)
			want("outer", outerGot, 1, 3)
		})
	}
}

// TestBothAreRead sends from both at once, with few buffers and with many.
func TestBothAreRead(t *testing.T) {
	const each = 5000
	for name, newOuter := range outers {
		for _, batch := range []int{1, 3, 128} {
			t.Run(fmt.Sprint(name, batch), func(t *testing.T) {
				outer, send, _ := newOuter(t)
				inner := newFake()
				d := New(outer, inner, hers)
				var senders sync.WaitGroup
				senders.Go(func() {
					for i := range each {
						send(packetTo(host, i, 100))
					}
				})
				senders.Go(func() {
					for i := range each {
						inner.send <- packetTo(hers, i, 200)
					}
				})
				bufs, sizes := room(batch)
				next := map[int]int{}
				for next[140] < each || next[240] < each {
					n, err := d.Read(bufs, sizes, offset)
					if err != nil || n == 0 {
						t.Fatalf("read: %d, %v after %v", n, err, next)
					}
					for i := range n {
						if got := number(bufs[i][offset:]); got != next[sizes[i]] {
							t.Fatalf("packet %d of size %d, want %d", got, sizes[i], next[sizes[i]])
						}
						next[sizes[i]]++
					}
				}
				senders.Wait()
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				if _, err := d.Read(bufs, sizes, offset); !errors.Is(err, os.ErrClosed) {
					t.Errorf("read after the end: %v", err)
				}
			})
		}
	}
}

// TestReaderIsCalledAway waits at the outer when the inner speaks.
func TestReaderIsCalledAway(t *testing.T) {
	for name, newOuter := range outers {
		t.Run(name, func(t *testing.T) {
			outer, send, _ := newOuter(t)
			inner := newFake()
			d := New(outer, inner, hers)
			defer d.Close()
			got := make(chan int)
			var reader sync.WaitGroup
			defer reader.Wait()
			defer d.Close()
			reader.Go(func() {
				bufs, sizes := room(8)
				for {
					n, err := d.Read(bufs, sizes, offset)
					if err != nil {
						close(got)
						return
					}
					for i := range n {
						got <- number(bufs[i][offset:])
					}
				}
			})
			for i := range 200 {
				if i%3 == 0 {
					send(packetTo(host, i, 100))
				} else {
					inner.send <- packetTo(hers, i, 100)
				}
				select {
				case n := <-got:
					if n != i {
						t.Fatalf("packet %d, want %d", n, i)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("packet %d does not come", i)
				}
			}
			inner.Close()
			send(packetTo(host, 1000, 100))
			if n := <-got; n != 1000 {
				t.Errorf("after the inner's end: %d", n)
			}
		})
	}
}

// TestBothTakeTurns reads while both devices have something to say all the time:
// neither keeps the other from being heard. How often each is heard is the
// scheduler's affair.
func TestBothTakeTurns(t *testing.T) {
	for name, newOuter := range outers {
		t.Run(name, func(t *testing.T) {
			outer, send, _ := newOuter(t)
			inner := newFake()
			d := New(outer, inner, hers)
			stop := make(chan struct{})
			var senders sync.WaitGroup
			senders.Go(func() {
				for {
					select {
					case <-stop:
						return
					case inner.send <- packetTo(hers, 0, 200):
					}
				}
			})
			senders.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						send(packetTo(host, 0, 100))
					}
				}
			})
			bufs, sizes := room(8)
			counts := map[int]int{}
			for patience := time.Now().Add(30 * time.Second); counts[140] < 200 || counts[240] < 200; {
				n, err := d.Read(bufs, sizes, offset)
				if err != nil {
					t.Fatal(err)
				}
				counts[sizes[0]] += min(n, 1)
				if time.Now().After(patience) {
					t.Fatalf("%d batches were the outer's and %d the inner's", counts[140], counts[240])
				}
			}
			close(stop)
			var drain sync.WaitGroup
			drain.Go(func() {
				for {
					if _, err := d.Read(bufs, sizes, offset); err != nil {
						return
					}
				}
			})
			senders.Wait()
			d.Close()
			drain.Wait()
		})
	}
}

func TestCloseWithoutRead(t *testing.T) {
	d := New(newFake(), newFake(), hers)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Read(nil, nil, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v", err)
	}
}
