package netstack

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// side is one direction of an endpoint: who waits in it, and until when.
// Everything that could end the wait (an event, a deadline, Close) sets its
// flag first and then wakes the waiter, who looks at all of them again.
type side struct {
	mu   sync.Mutex // one reader, one writer at a time
	wake chan struct{}
	next atomic.Pointer[func()] // who is called by the next event, in place of a waiter

	late  atomic.Bool // the deadline has passed
	setMu sync.Mutex
	timer *time.Timer
	turn  int // of the deadlines that were set
}

func (s *side) nudge() {
	if f := s.next.Swap(nil); f != nil {
		go (*f)()
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// NotifyEvent makes a side the listener of a gVisor queue.
func (s *side) NotifyEvent(waiter.EventMask) { s.nudge() }

func (s *side) setDeadline(t time.Time) {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	s.turn++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	wait := time.Until(t)
	s.late.Store(!t.IsZero() && wait <= 0)
	if turn := s.turn; !t.IsZero() && wait > 0 {
		s.timer = time.AfterFunc(wait, func() {
			s.setMu.Lock()
			defer s.setMu.Unlock()
			if s.turn == turn {
				s.late.Store(true)
				s.nudge()
			}
		})
	}
	s.nudge()
}

// endpoint is what connections and listeners share: a gVisor endpoint that
// one can wait for.
type endpoint struct {
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	closed atomic.Bool
	once   sync.Once

	in, out           side
	inEntry, outEntry waiter.Entry
}

// inEvents are what a reader may wait for.
const inEvents = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr

func (e *endpoint) init(ep tcpip.Endpoint, wq *waiter.Queue) {
	e.ep, e.wq = ep, wq
	e.in.wake, e.out.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	e.inEntry.Init(&e.in, inEvents)
	e.outEntry.Init(&e.out, waiter.WritableEvents|waiter.EventHUp|waiter.EventErr)
	wq.EventRegister(&e.inEntry)
	wq.EventRegister(&e.outEntry)
}

// try calls op until it does something else than block.
func (e *endpoint) try(s *side, op func() tcpip.Error) error {
	for {
		if e.closed.Load() {
			return net.ErrClosed
		}
		if s.late.Load() {
			return os.ErrDeadlineExceeded
		}
		err := op()
		if _, ok := err.(*tcpip.ErrWouldBlock); !ok {
			return errno(err)
		}
		<-s.wake
	}
}

func (e *endpoint) read(b []byte, from *tcpip.FullAddress) (n int, err error) {
	w := tcpip.SliceWriter(b)
	return e.readTo(&w, from)
}

func (e *endpoint) readTo(w io.Writer, from *tcpip.FullAddress) (n int, err error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	err = e.try(&e.in, func() tcpip.Error {
		res, terr := e.ep.Read(w, tcpip.ReadOptions{NeedRemoteAddr: from != nil})
		n = res.Count
		if from != nil {
			*from = res.RemoteAddr
		}
		return terr
	})
	return n, err
}

// write sends all of b, or what fits before an error.
func (e *endpoint) write(b []byte, to *tcpip.FullAddress, datagram bool) (n int, err error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	var r bytes.Reader
	defer r.Reset(nil) // gVisor keeps the last reader as long as the endpoint lives, and with it b
	for {
		r.Reset(b[n:])
		err = e.try(&e.out, func() tcpip.Error {
			k, terr := e.ep.Write(&r, tcpip.WriteOptions{To: to})
			n += int(k)
			return terr
		})
		if err == io.EOF {
			err = io.ErrClosedPipe
		}
		if err != nil || datagram || n == len(b) {
			return n, err
		}
	}
}

// interrupt makes everybody who waits return net.ErrClosed, now and later.
func (e *endpoint) interrupt() {
	e.closed.Store(true)
	e.in.nudge()
	e.out.nudge()
}

// close ends the endpoint by end, once, after everybody has left it.
func (e *endpoint) close(end func()) {
	e.once.Do(func() {
		e.interrupt()
		e.in.mu.Lock()
		e.out.mu.Lock()
		e.wq.EventUnregister(&e.inEntry)
		e.wq.EventUnregister(&e.outEntry)
		e.out.mu.Unlock()
		e.in.mu.Unlock()
		e.in.setDeadline(time.Time{})
		e.out.setDeadline(time.Time{})
		end()
	})
}

func (e *endpoint) SetDeadline(t time.Time) error {
	e.in.setDeadline(t)
	e.out.setDeadline(t)
	return nil
}

func (e *endpoint) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(t)
	return nil
}

func (e *endpoint) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(t)
	return nil
}
