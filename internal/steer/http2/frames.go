package http2

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"podnet.dev/internal/steer"
)

// read reads frames until the connection is over. The error is nil if we shut
// it, and a http2.ConnectionError if it is the other end's fault.
func (c *conn) read() error {
	for {
		h, err := c.reader.ReadFrameHeader()
		if err == nil {
			err = c.readFrame(h)
		}
		var fault http2.StreamError
		if errors.As(err, &fault) && h.Type != http2.FrameHeaders {
			c.s.mu.Lock()
			err = c.faultLocked(fault.StreamID, fault.Code)
			c.s.unlock()
		}
		switch {
		case err == nil:
			continue
		case errors.As(err, &fault):
			return http2.ConnectionError(fault.Code) // the block was not decoded
		case errors.Is(err, http2.ErrFrameTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		return err
	}
}

func (c *conn) readFrame(h http2.FrameHeader) error {
	frame, err := c.reader.ReadFrameForHeader(h)
	if err != nil {
		return err
	}
	var b block
	end := false
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		end = f.StreamEnded()
		b, err = c.readBlock(f)
	case *http2.PushPromiseFrame:
		err = http2.ConnectionError(http2.ErrCodeProtocol) // we said that we want none
	}
	if err != nil {
		return err
	}

	c.s.mu.Lock()
	defer c.s.unlock()
	if c.closing {
		return nil
	}
	if err := c.countLocked(frame); err != nil {
		return err
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		if c.role == client {
			return c.s.requestBlockLocked(f.StreamID, b, end)
		}
		return c.responseBlockLocked(f.StreamID, b, end)
	case *http2.DataFrame:
		return c.dataLocked(f)
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.settingsLocked(f)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.pings = append(c.pings, f.Data)
			c.wake()
		}
	case *http2.WindowUpdateFrame:
		return c.windowLocked(f.StreamID, int64(f.Increment))
	case *http2.RSTStreamFrame:
		return c.resetLocked(f.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		c.goAwayLocked(&goAway{f.LastStreamID, f.ErrCode, slices.Clone(f.DebugData()[:min(len(f.DebugData()), maxDebug)])})
	}
	return nil
}

// readBlock reads the header block that begins with f. The Framer takes nothing
// but CONTINUATION in it.
func (c *conn) readBlock(f *http2.HeadersFrame) (block, error) {
	c.dec.begin()
	err := c.dec.fragment(f.HeaderBlockFragment())
	for done := f.HeadersEnded(); !done && err == nil; {
		var frame http2.Frame
		if frame, err = c.reader.ReadFrame(); err != nil {
			break
		}
		more := frame.(*http2.ContinuationFrame)
		done = more.HeadersEnded()
		err = c.dec.fragment(more.HeaderBlockFragment())
	}
	if err != nil {
		return block{}, err
	}
	return c.dec.finish()
}

// countLocked holds the other end to the limits on frames that only make work.
func (c *conn) countLocked(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		c.noise.content++
		return nil
	case *http2.DataFrame:
		if len(f.Data()) > 0 || f.StreamEnded() {
			c.noise.content++
			return nil
		}
	case *http2.SettingsFrame:
		if c.settings.add(time.Now()) > maxSettings {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		return nil
	}
	if c.role == client && c.noise.add(time.Now()) || len(c.pings) >= maxPings {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// idleLocked reports whether nobody has opened that stream yet. Nothing may come
// for such one, while for one that is gone much may be under way still.
func (c *conn) idleLocked(id uint32) bool { return id%2 == 0 || id > c.lastID }

func (c *conn) dataLocked(f *http2.DataFrame) error {
	n, data := int(f.Length), f.Data()
	if !c.credit.receive(n) {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := c.streams[f.StreamID]
	if st == nil {
		c.freedLocked(n)
		if c.idleLocked(f.StreamID) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	switch {
	case st.deaf || st.cut:
		c.freedLocked(n)
		st.heard = st.heard || f.StreamEnded()
		st.endLocked()
		return nil
	case st.heard:
		c.freedLocked(n)
		return c.faultLocked(st.id, http2.ErrCodeStreamClosed)
	case !st.credit.receive(n):
		c.freedLocked(n)
		return c.faultLocked(st.id, http2.ErrCodeFlowControl)
	case c.role != client && st.x.status == 0:
		c.freedLocked(n)
		return c.faultLocked(st.id, http2.ErrCodeProtocol) // no head yet
	}
	st.heard = f.StreamEnded()
	st.x.readLocked(st, data)
	switch {
	case st.peer == nil || st.peer.gone || st.peer.cut:
		st.freedLocked(n)
	default:
		st.freedLocked(n - len(data)) // the padding goes no further
		st.peer.out.addData(data, st.heard)
		st.peer.listLocked()
	}
	st.endLocked()
	return nil
}

func (c *conn) windowLocked(id uint32, n int64) error {
	if id == 0 {
		if !c.allow.add(n) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		for _, st := range c.starved {
			st.starved = false
			st.listLocked()
		}
		c.starved = c.starved[:0]
		return nil
	}
	st := c.streams[id]
	switch {
	case st == nil && c.idleLocked(id):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil:
	case !st.allow.add(n):
		return c.faultLocked(id, http2.ErrCodeFlowControl)
	case st.out.first() != nil:
		st.listLocked()
	}
	return nil
}

// settingsLocked does what the other end asks for, and acknowledges it.
func (c *conn) settingsLocked(f *http2.SettingsFrame) error {
	err := f.ForeachSetting(func(set http2.Setting) error {
		if err := set.Valid(); err != nil {
			return err
		}
		switch set.ID {
		case http2.SettingHeaderTableSize:
			c.enc.resize(set.Val)
		case http2.SettingInitialWindowSize:
			return c.initialLocked(allowance(set.Val))
		case http2.SettingMaxConcurrentStreams:
			c.limit = set.Val
		case http2.SettingEnableConnectProtocol:
			c.canConnect = set.Val == 1
		case http2.SettingMaxHeaderListSize:
			c.headList = min(set.Val, steer.MaxHead)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.acks++
	c.wake()
	if c.role == app {
		c.s.appSettingsLocked()
	}
	return nil
}

// initialLocked changes the window of all streams (RFC 9113, section 6.9.2).
func (c *conn) initialLocked(n allowance) error {
	by := int64(n - c.initial)
	c.initial = n
	for _, st := range c.streams {
		if !st.allow.add(by) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		if by > 0 && st.out.first() != nil {
			st.listLocked()
		}
	}
	return nil
}

// spoiledLocked finds a stream that ends before its time, and what that says of the
// connection; nil if it is over already.
func (c *conn) spoiledLocked(id uint32) (st *stream, err error) {
	st = c.streams[id]
	switch {
	case st == nil && c.idleLocked(id):
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	case st != nil && c.role == client:
		err = c.s.spoiledLocked(st.x)
	}
	return st, err
}

// resetLocked takes the other end's RST_STREAM. Its code goes on as it is.
func (c *conn) resetLocked(id uint32, code http2.ErrCode) error {
	st, err := c.spoiledLocked(id)
	if st == nil {
		return err
	}
	x := st.x
	if c.role == client || !st.heard { // else the response is whole
		x.failLocked(fmt.Errorf("reset by %s: %v", c.role, code))
	}
	st.removeLocked()
	x.endOthersLocked(st, code)
	return err
}

// faultLocked resets a stream on which the other end broke the protocol.
func (c *conn) faultLocked(id uint32, code http2.ErrCode) error {
	st, err := c.spoiledLocked(id)
	if st == nil {
		return err
	}
	x := st.x
	x.failLocked(fmt.Errorf("%s broke the protocol: %v", c.role, code))
	st.resetLocked(code, false)
	if c.role == client {
		code = http2.ErrCodeCancel
	}
	x.endOthersLocked(st, code)
	return err
}

func (r role) String() string { return [...]string{"client", "app", "laptop", "mirror"}[r] }
