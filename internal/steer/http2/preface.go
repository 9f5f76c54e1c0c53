package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
)

// opening is how a client's connection begins.
type opening struct {
	raw      []byte // what was read
	rest     io.Reader
	settings *http2.SettingsFrame
}

// readOpening reads the preface and the SETTINGS behind it (RFC 9113, section
// 3.4), of which first were read before. The error is a doubt: raw and rest are
// then for the app.
func readOpening(nc net.Conn, first []byte) (*opening, error) {
	o := &opening{rest: io.MultiReader(bytes.NewReader(first), nc)}
	if err := nc.SetReadDeadline(time.Now().Add(steer.HeadTime)); err != nil {
		return o, err
	}
	defer func() { _ = nc.SetReadDeadline(time.Time{}) }()
	if err := o.read(len(http2.ClientPreface)); err != nil {
		return o, err
	}
	if string(o.raw) != http2.ClientPreface {
		return o, errors.New("no preface of HTTP/2")
	}
	const frameHeader = 9
	if err := o.read(frameHeader); err != nil {
		return o, err
	}
	frame := o.raw[len(http2.ClientPreface):]
	size := int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2])
	if http2.FrameType(frame[3]) != http2.FrameSettings || size > maxFrame {
		return o, errors.New("no SETTINGS behind the preface")
	}
	if err := o.read(size); err != nil {
		return o, err
	}
	f, err := http2.NewFramer(nil, bytes.NewReader(o.raw[len(http2.ClientPreface):])).ReadFrame()
	if err != nil {
		return o, err
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return o, errors.New("no SETTINGS behind the preface")
	}
	o.settings = settings
	return o, settings.ForeachSetting(http2.Setting.Valid)
}

// read reads n more bytes into raw. A connection that broke is broken for whoever
// reads rest, too: it says so only once.
func (o *opening) read(n int) error {
	begin := len(o.raw)
	o.raw = append(o.raw, make([]byte, n)...)
	got, err := io.ReadFull(o.rest, o.raw[begin:])
	o.raw = o.raw[:begin+got]
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		o.rest = broken{err}
	}
	return err
}

// broken is what is left to read of a broken connection.
type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }

// pass carries all bytes between a client and the app until both have said all, or
// one has failed: then both are reset. It counts those from the client and to it.
func pass(client, app net.Conn, o *opening) (in, out int64, err error) {
	fail := sync.OnceFunc(func() {
		splice.Reset(client)
		splice.Reset(app)
	})
	back := make(chan error, 1)
	go func() {
		var err error
		if out, err = splice.Carry(client, app, nil); err != nil {
			fail()
		}
		back <- err
	}()
	if in, err = splice.Carry(app, io.MultiReader(bytes.NewReader(o.raw), o.rest), nil); err != nil {
		fail()
	}
	return in, out, errors.Join(err, <-back)
}

// greetUp begins to speak HTTP/2 with an app or a laptop on nc, whose SETTINGS it
// waits for.
func (c *conn) greetUp(nc net.Conn) error {
	c.s.mu.Lock()
	c.greet(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.s.client.headList},
	)
	c.s.mu.Unlock()
	if _, err := nc.Write(c.buf.Bytes()); err != nil {
		return err
	}
	c.buf.Reset()
	c.s.mu.Lock()
	c.attachLocked(nc, nc)
	c.s.mu.Unlock()
	f, err := c.reader.ReadFrame()
	if err != nil {
		return fmt.Errorf("await SETTINGS: %w", err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return errors.New("await SETTINGS: something else came")
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.settingsLocked(settings)
}
