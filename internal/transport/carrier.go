package transport

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/transport/inflight"
)

const (
	// sendQueue is how many bytes may wait behind the write in progress before
	// send holds its caller back. A batch is taken whole, so one batch more
	// may be there. On a slow stream it is less, see flow.queue.
	sendQueue = 64 << 10
	// writeChunk is how much one Write is given: a write that returns is how
	// a carrier sees that it moves, and control messages go between two.
	writeChunk = 64 << 10
	// stallAfter is how long a carrier may accept nothing before its datagrams
	// are dropped, as a wire would: the device reads its TUN for all peers in
	// one goroutine, and one peer must not hold up the others for longer.
	// 64 KiB in 2 s is 260 kbit/s.
	stallAfter = 2 * time.Second
	// deadAfter is how long it may do so before it is given up.
	deadAfter = 15 * time.Second
	// controlQueue is how many bytes of control messages may wait for the
	// write in progress. More are dropped.
	controlQueue = 4 << 10
	// idleAfter is when a writer gives its buffers back.
	idleAfter = 10 * time.Second
	// preambleTimeout bounds the exchange that opens a stream.
	preambleTimeout = 5 * time.Second
)

// carrier is one established stream with datagrams in both directions. It never
// drops while the stream moves.
type carrier struct {
	b  *Bind
	c  net.Conn
	ep conn.Endpoint // the sender of what arrives
	rx *atomic.Uint64
	tx *atomic.Uint64

	// on has what to do with control messages, by their second byte. It is
	// complete before run. The functions run where the stream is read, so
	// they must not wait for anything; the message is theirs until they
	// return.
	on map[byte]func(m []byte)

	flow *flow
	wake chan struct{} // to the writer: something is pending
	room chan struct{} // to senders: the writer took what was pending

	mu        sync.Mutex
	pending   []byte
	unwritten int           // bytes that were pending and are being written
	control   []byte        // goes out before pending
	left      chan struct{} // closed, and made anew, to end all waits for room
	writing   bool
	moved     time.Time // when the stream last moved, or was first asked to

	spareControl []byte // the writer's

	closeOnce sync.Once
	closed    chan struct{}
	err       error // why; set before closed is closed
}

func newCarrier(b *Bind, c net.Conn, rx, tx *atomic.Uint64) *carrier {
	tuneStream(c)
	k := &carrier{
		b: b, c: c, rx: rx, tx: tx,
		wake:   make(chan struct{}, 1),
		room:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		left:   make(chan struct{}),
	}
	k.flow = newFlow(func() { signal(k.wake) })
	k.on = map[byte]func([]byte){inflight.Kind: k.acknowledged}
	return k
}

// run moves datagrams until the stream ends and says why it did.
func (c *carrier) run() error {
	var w sync.WaitGroup
	w.Go(func() { c.close(c.write()) })
	c.close(c.read())
	w.Wait()
	c.flow.close()
	return c.err
}

func (c *carrier) close(why error) {
	c.closeOnce.Do(func() {
		c.err = why
		close(c.closed)
		c.c.Close()
	})
}

// read hands whole frames to the device, a buffer at a time. Control messages
// are not the device's: they are acted on here, also those that stand behind
// data which the device has no time for yet.
func (c *carrier) read() error {
	r := frameReader{src: c.c}
	bt := newBatch(c.ep)
	for {
		frames, err := r.next()
		if err != nil {
			return err
		}
		c.rx.Add(uint64(len(frames)))
		data := len(frames)
		if r.controls > 0 {
			data = c.heed(frames)
		}
		if data == 0 {
			continue
		}
		c.flow.receive(data)
		bt.frames = frames
		select {
		case c.b.inbox <- bt:
		case <-c.closed:
			return errDown
		}
		// The device may be copying out of the buffer, so nothing but its
		// word may make us use the buffer again.
		select {
		case <-bt.done:
		case <-c.closed:
			return errDown
		}
	}
}

// heed acts on the control messages among frames and returns how many bytes the
// others have.
func (c *carrier) heed(frames []byte) (data int) {
	for len(frames) > 0 {
		m, rest, size, _ := nextFrame(frames)
		frames = rest
		if m[0] != msgControl {
			data += size
		} else if f := c.on[m[1]]; f != nil {
			f(m)
		}
	}
	return data
}

// acknowledged is what the other end says of what we sent.
func (c *carrier) acknowledged(m []byte) {
	c.mu.Lock()
	c.moved = time.Now()
	c.mu.Unlock()
	if err := c.flow.acknowledged(m); err != nil {
		c.close(err)
	}
}

// sendControl queues a control message, before all data that is not being
// written yet. It never waits: when too many do already, or when m is longer
// than all of them may be, m is dropped.
func (c *carrier) sendControl(m []byte) {
	c.mu.Lock()
	if len(c.control)+headerLen+len(m) > controlQueue {
		c.mu.Unlock()
		return
	}
	if len(c.pending)+len(c.control) == 0 && !c.writing {
		c.moved = time.Now()
	}
	c.control = appendFrame(c.control, m)
	c.mu.Unlock()
	signal(c.wake)
}

// send queues a batch. While the stream moves it waits for room, until cancel.
// A stream that has not moved for stallAfter loses the batch instead, and one
// that has not for deadAfter is closed.
func (c *carrier) send(bufs [][]byte, cancel <-chan struct{}) {
	n := 0
	for _, m := range bufs {
		if len(m) <= maxFrame {
			n += headerLen + len(m)
		}
	}
	if !c.waitRoom(cancel) {
		return
	}
	if len(c.pending)+len(c.control) == 0 && !c.writing {
		c.moved = time.Now() // until now it had nothing to accept
	}
	for _, m := range bufs {
		if len(m) <= maxFrame {
			c.pending = appendFrame(c.pending, m)
		}
	}
	roomLeft := c.roomLocked()
	c.mu.Unlock()
	c.tx.Add(uint64(n))
	signal(c.wake)
	if roomLeft {
		signal(c.room) // for another sender, if one waits
	}
}

func (c *carrier) roomLocked() bool {
	if limit, slow := c.flow.queue(); slow {
		return len(c.pending)+c.unwritten < limit
	}
	return len(c.pending) < sendQueue
}

// waitRoom returns with c.mu held when there is room, and without when the batch
// is to be dropped.
func (c *carrier) waitRoom(cancel <-chan struct{}) bool {
	var timer *time.Timer
	for {
		c.mu.Lock()
		if c.roomLocked() {
			return true
		}
		still, left := time.Since(c.moved), c.left
		c.mu.Unlock()
		if still >= stallAfter {
			if still >= deadAfter {
				c.close(fmt.Errorf("stream accepted nothing for %v", deadAfter))
			}
			return false
		}
		if timer == nil {
			timer = time.NewTimer(stallAfter - still)
			defer timer.Stop()
		} else {
			timer.Reset(stallAfter - still)
		}
		select {
		case <-c.room:
		case <-timer.C:
		case <-cancel:
			return false
		case <-left:
			return false
		case <-c.closed:
			return false
		}
	}
}

// letGo makes those who wait for room lose their datagrams: there is a better way
// for those to come.
func (c *carrier) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.left)
	c.left = make(chan struct{})
}

// write moves what is pending into the stream, all of it in one go, and lets
// senders fill a second buffer meanwhile.
func (c *carrier) write() error {
	var spare []byte
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	for {
		c.mu.Lock()
		out := c.pending
		if len(out) > 0 {
			c.pending = spare[:0]
		}
		c.unwritten = len(out)
		c.writing = len(out)+len(c.control) > 0
		c.mu.Unlock()
		if len(out) > 0 {
			signal(c.room)
			if err := c.writeData(out); err != nil {
				return err
			}
			spare = out
			continue
		}
		if n, err := c.writeControl(); n > 0 || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		c.flow.dry()
		idle.Reset(idleAfter)
		select {
		case <-c.wake:
		case <-idle.C:
			spare = nil
			c.mu.Lock()
			if len(c.pending) == 0 {
				c.pending = nil
			}
			c.mu.Unlock()
		case <-c.closed:
			return errDown
		}
	}
}

// writeData moves whole frames into the stream, a chunk at a time and as fast as
// the other end acknowledges them. Control messages do not wait for that.
func (c *carrier) writeData(frames []byte) error {
	for len(frames) > 0 {
		if _, err := c.writeControl(); err != nil {
			return err
		}
		n := c.flow.cut(frames, writeChunk)
		if n == 0 {
			select {
			case <-c.wake:
			case <-c.closed:
				return errDown
			}
			continue
		}
		if err := c.writeOut(frames[:n]); err != nil {
			return err
		}
		frames = frames[n:]
		c.mu.Lock()
		c.unwritten = len(frames)
		c.mu.Unlock()
		signal(c.room)
	}
	return nil
}

// writeControl writes what control messages there are and returns their bytes.
func (c *carrier) writeControl() (int, error) {
	c.mu.Lock()
	c.control, c.spareControl = c.spareControl[:0], c.control
	c.mu.Unlock()
	c.spareControl = c.flow.appendAck(c.spareControl)
	if len(c.spareControl) == 0 {
		return 0, nil
	}
	return len(c.spareControl), c.writeOut(c.spareControl)
}

func (c *carrier) writeOut(b []byte) error {
	_, err := c.c.Write(b)
	if err == nil {
		c.mu.Lock()
		c.moved = time.Now()
		c.mu.Unlock()
	}
	return err
}

// signal wakes the one who waits for ch, now or next time.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// greet exchanges preambles. The server answers only who has begun well; to
// another version of the protocol it still says its own.
func greet(c net.Conn, server bool) error {
	// Not every net.Conn knows deadlines (a port-forward's may not); all know
	// Close.
	timeout := time.AfterFunc(preambleTimeout, func() { c.Close() })
	defer timeout.Stop()
	if !server {
		if _, err := c.Write(preamble[:]); err != nil {
			return err
		}
		return greetingError(readPreamble(c), timeout)
	}
	err := readPreamble(c)
	if _, other := err.(VersionError); err == nil || other {
		if _, werr := c.Write(preamble[:]); err == nil {
			err = werr
		}
	}
	return greetingError(err, timeout)
}

// greetingError tells a preamble that came too late from one that is wrong.
func greetingError(err error, timeout *time.Timer) error {
	if !timeout.Stop() {
		return fmt.Errorf("no preamble within %v", preambleTimeout)
	}
	return err
}
