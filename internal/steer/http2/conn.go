package http2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"podnet.dev/internal/steer"
)

// role is who is at the other end of a connection.
type role int

const (
	client role = iota // its streams are its own; all others' are ours
	app
	laptop
	mirror // a laptop that gets copies; its answers are dropped
)

// conn is one connection. A goroutine reads its frames and does under session.mu
// what they ask for; another writes what is due. No lock is held while either
// waits for the network, so that an end that is slow holds up nobody.
type conn struct {
	s    *session
	role role
	rule *steer.Rule // whose laptop it is

	// For the reader alone.
	reader   *http2.Framer
	source   io.Reader
	dec      *decoder
	settings tally

	nc     net.Conn
	due    chan struct{} // there is something for the writer
	buf    bytes.Buffer  // what the writer writes next
	framer *http2.Framer // into buf
	enc    *encoder

	cancel context.CancelFunc // ends the attempt to connect; nil: of the client and the app

	// The rest is guarded by session.mu, and so is nc until it is attached.
	streams  map[uint32]*stream
	live     int    // streams that are not about to be reset
	lastID   uint32 // the highest of a stream that was opened
	closing  bool   // write what is due, then close
	draining bool   // GOAWAY came: open no more streams
	err      error  // why it ended

	credit  credit
	allow   allowance
	initial allowance // of a new stream
	limit   uint32    // how many streams the other end lets us open

	ready   []*stream // have something to be written, in turn
	starved []*stream // wait for allow
	owed    []*stream // wait for credit to be told
	gone    int       // how many may be on the lists that are gone, at most

	acks  int             // SETTINGS to be acknowledged
	pings [][8]byte       // PINGs to be answered
	away  *goAway         // to be told
	tell  []http2.Setting // to be told
	noise noise
	held  int // weight of all that waits on a mirror

	canConnect bool   // SETTINGS_ENABLE_CONNECT_PROTOCOL
	headList   uint32 // SETTINGS_MAX_HEADER_LIST_SIZE, steer.MaxHead at most
}

// goAway is what a GOAWAY says.
type goAway struct {
	last  uint32
	code  http2.ErrCode
	debug []byte
}

func newConn(s *session, role role, rule *steer.Rule) *conn {
	c := &conn{
		s: s, role: role, rule: rule,
		dec: newDecoder(), enc: newEncoder(),
		due:     make(chan struct{}, 1),
		streams: make(map[uint32]*stream),
		credit:  credit{size: windowConn, ceil: windowConn, open: windowConn},
		allow:   windowStart, initial: windowStart, limit: maxStreams,
		headList: steer.MaxHead,
	}
	c.framer = http2.NewFramer(&c.buf, nil)
	return c
}

// attachLocked gives c its connection, of which the bytes come from source.
func (c *conn) attachLocked(nc net.Conn, source io.Reader) {
	c.nc, c.source = nc, bufio.NewReaderSize(source, maxFrame)
	c.reader = http2.NewFramer(nil, c.source)
	c.reader.SetReuseFrames()
	c.reader.SetMaxReadFrameSize(maxFrame)
}

// greet puts our SETTINGS into the buffer.
func (c *conn) greet(settings ...http2.Setting) {
	if c.role != client {
		c.buf.WriteString(http2.ClientPreface)
	}
	_ = c.framer.WriteSettings(settings...)
	_ = c.framer.WriteWindowUpdate(0, windowConn-windowStart)
}

// run reads and writes until the connection is over, and closes it. What the
// streams of an app or a laptop come to is settled as soon as nothing more comes.
func (c *conn) run() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	err := c.read()
	c.s.mu.Lock()
	c.shutLocked(err)
	if c.role != client {
		c.lostLocked(err)
	}
	c.s.unlock()
	if !isWireError(err) {
		_ = c.nc.Close() // there is nobody left to read what is due
	}
	<-written
	// Bytes that come to a closed socket reset the connection, and the other
	// end would not see what was written last.
	_, _ = io.Copy(io.Discard, c.source)
	_ = c.nc.Close()
	return err
}

// shutLocked has the writer close c when it has written what is due. An error in
// what the other end sent is told by GOAWAY.
func (c *conn) shutLocked(err error) {
	if c.closing {
		return
	}
	c.closing, c.err = true, err
	var code http2.ConnectionError
	if errors.As(err, &code) {
		last := uint32(0)
		if c.role == client {
			last = min(c.lastID, c.s.lastAllowed)
		}
		c.away = &goAway{last: last, code: http2.ErrCode(code)}
	}
	if c.nc != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	}
	c.wake()
}

// isWireError reports whether a connection ended by what came on it.
func isWireError(err error) bool {
	var code http2.ConnectionError
	return err == nil || errors.As(err, &code)
}

// isHangUp reports whether a client just went.
func isHangUp(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded)
}

// wake has the writer look for work.
func (c *conn) wake() {
	select {
	case c.due <- struct{}{}:
	default:
	}
}

// write writes what is due until the connection fails or is shut.
func (c *conn) write() {
	for {
		c.s.mu.Lock()
		c.fillLocked()
		over := c.closing && c.buf.Len() == 0
		c.s.unlock()
		switch {
		case over:
			closeWrite(c.nc)
			_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
			return
		case c.buf.Len() == 0:
			<-c.due
		default:
			if _, err := c.nc.Write(c.buf.Bytes()); err != nil {
				_ = c.nc.Close()
				return
			}
			c.buf.Reset()
		}
	}
}

// batch is how many bytes are written at once, about.
const batch = 2 * maxFrame

// fillLocked puts what is due into the buffer: first what concerns the
// connection, then each stream's next frame in turn.
func (c *conn) fillLocked() {
	c.fillControlLocked()
	for len(c.ready) > 0 && c.buf.Len() < batch {
		st := c.ready[0]
		c.ready[0] = nil
		c.ready = c.ready[1:]
		st.listed = false
		if st.writeLocked() {
			st.listLocked()
		}
	}
}

// fillControlLocked puts what concerns no stream's content into the buffer.
func (c *conn) fillControlLocked() {
	if len(c.tell) > 0 {
		_ = c.framer.WriteSettings(c.tell...)
		c.tell = nil
	}
	for ; c.acks > 0; c.acks-- {
		_ = c.framer.WriteSettingsAck()
	}
	for _, data := range c.pings {
		_ = c.framer.WritePing(true, data)
	}
	c.pings = nil
	if c.credit.freed > 0 && c.credit.freed >= c.credit.size/4 {
		_ = c.framer.WriteWindowUpdate(0, c.credit.give())
	}
	for _, st := range c.owed {
		st.owed = false
		if !st.gone && !st.cut && !st.heard && st.opened {
			_ = c.framer.WriteWindowUpdate(st.id, st.credit.give())
		}
	}
	c.owed = c.owed[:0]
	if c.away != nil {
		_ = c.framer.WriteGoAway(c.away.last, c.away.code, c.away.debug)
		c.away = nil
	}
}

// sweepLocked is called for each stream that is gone, and takes them off the
// writer's lists now and then: the writer itself never gets to it when the other
// end does not read, but opens and resets streams all the time.
func (c *conn) sweepLocked() {
	if c.gone++; c.gone < maxStreams {
		return
	}
	c.gone = 0
	isGone := func(st *stream) bool { return st.gone }
	c.ready = slices.DeleteFunc(c.ready, isGone)
	c.starved = slices.DeleteFunc(c.starved, isGone)
	c.owed = slices.DeleteFunc(c.owed, isGone)
}

// freedLocked notes that n bytes of what came on c are no longer kept.
func (c *conn) freedLocked(n int) {
	if n > 0 && c.credit.free(n) {
		c.wake()
	}
}

// releaseLocked notes that what had that weight does not wait on c any more.
func (c *conn) releaseLocked(weight int) {
	if c.role == mirror {
		c.held -= weight
		c.s.copies.Give(weight)
	}
}

// closeWrite tells the other end that no more comes, where there is a way to.
func closeWrite(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
