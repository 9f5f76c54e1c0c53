package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

func TestFieldsStayAsTheyCame(t *testing.T) {
	w := newWorld(t, steals("ada"))
	app := w.wires("app")
	c := w.wire()
	fields := []hpack.HeaderField{
		{Name: ":path", Value: "/b?c=%41"}, {Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: "x-b", Value: "2"}, {Name: "cookie", Value: "a=b", Sensitive: true}, {Name: "x-a", Value: "1"},
		{Name: "x-b", Value: "1"}, {Name: "cookie", Value: "c=d", Sensitive: true}, {Name: "te", Value: "trailers"},
		{Name: "x-long", Value: strings.Repeat("a", 40000)},
	}
	for id := uint32(1); id < 7; id += 2 { // later ones come from the table
		c.enc.write(c.fr, id, fields, true)
	}
	s := <-app
	for id := uint32(1); id < 7; id += 2 {
		if h := await(s, on[*http2.MetaHeadersFrame](id)); !slices.Equal(h.Fields, fields) || !h.StreamEnded() {
			t.Errorf("the app got %v", h.Fields)
		}
	}
}

// What an odd head means is the app's matter, and nobody else's.
func TestOddHeadGoesToTheApp(t *testing.T) {
	for name, fields := range map[string][]string{
		"two content-length": {":method", "GET", ":scheme", "http", ":path", "/", "x-user", "ada", "content-length", "1", "content-length", "2"},
		"hop by hop":         {":method", "GET", ":scheme", "http", ":path", "/", "x-user", "ada", "connection", "x"},
		"no path":            {":method", "GET", ":scheme", "http", "x-user", "ada"},
		"upper case":         {":method", "GET", ":scheme", "http", ":path", "/", "x-user", "ada", "X-A", "1"},
		"two hosts":          {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "x-user", "ada", "host", "b"},
		"connect":            {":method", "CONNECT", ":authority", "a", "x-user", "ada"},
		"late pseudo":        {":method", "GET", ":scheme", "http", "x-user", "ada", ":path", "/"},
		"control":            {":method", "GET", ":scheme", "http", ":path", "/", "x-user", "ada", "x", "a\x00b"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, steals("ada"))
			app := w.wires("app")
			c := w.wire()
			c.headers(1, true, fields...)
			s := <-app
			s.fr.ReadMetaHeaders = nil
			h := await(s, on[*http2.HeadersFrame](1))
			var got []string
			_, err := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f.Name, f.Value) }).Write(h.HeaderBlockFragment())
			if err != nil || !slices.Equal(got, fields) {
				t.Errorf("the app got %q, %v", got, err)
			}
		})
	}
}

func TestClientLearnsTheAppsSettings(t *testing.T) {
	w := newWorld(t)
	app := w.wires("app", http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2}, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	c := w.wire(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 5000})
	s := <-app
	f := await(s, anyFrame[*http2.SettingsFrame])
	if v, _ := f.Value(http2.SettingMaxHeaderListSize); v != 5000 {
		t.Errorf("the app was told %v", f)
	}
	f = await(c, anyFrame[*http2.SettingsFrame])
	streams, _ := f.Value(http2.SettingMaxConcurrentStreams)
	connect, _ := f.Value(http2.SettingEnableConnectProtocol)
	if streams != 2 || connect != 1 {
		t.Errorf("the client was told %v", f)
	}
	for id := uint32(1); id <= 5; id += 2 {
		c.request(id, false)
	}
	if f := await(c, anyFrame[*http2.RSTStreamFrame]); f.StreamID != 5 || f.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("%v", f)
	}
	_ = s.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 9})
	await(c, func(f *http2.SettingsFrame) bool {
		v, _ := f.Value(http2.SettingMaxConcurrentStreams)
		return v == 9
	})
}

// The app has seen 1 of its streams; the client counts a stolen one in between.
func TestGoAwayOfTheApp(t *testing.T) {
	w := newWorld(t, steals("ada"))
	app, ada := w.wires("app"), w.wires("ada")
	c := w.wire()
	c.request(1, true)
	c.request(3, true)
	c.request(5, true, "x-user", "ada")
	c.request(7, true)
	s, l := <-app, <-ada
	await(s, on[*http2.MetaHeadersFrame](5))
	await(l, on[*http2.MetaHeadersFrame](1))
	_ = s.fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
	if f := await(c, anyFrame[*http2.GoAwayFrame]); f.LastStreamID != 1<<31-1 {
		t.Errorf("a warning became %v", f)
	}
	_ = s.fr.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("tired"))
	refused, away := uint32(0), uint32(0)
	for refused == 0 || away == 0 {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			if refused = f.StreamID; f.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("%v", f)
			}
		case *http2.GoAwayFrame:
			if away = f.LastStreamID; f.ErrCode != http2.ErrCodeEnhanceYourCalm || string(f.DebugData()) != "tired" {
				t.Errorf("%v %q", f, f.DebugData())
			}
		}
	}
	if refused != 3 || away != 5 {
		t.Errorf("stream %d was refused, GOAWAY has %d", refused, away)
	}
	c.request(9, false, "x-user", "ada") // ignored, and so is all of it
	_ = c.fr.WriteData(9, true, []byte("x"))
	s.headers(1, true, ":status", "204")
	await(c, on[*http2.MetaHeadersFrame](1))
	_ = s.nc.Close()
	l.headers(1, true, ":status", "200")
	await(c, on[*http2.MetaHeadersFrame](5))
	for {
		if _, err := c.fr.ReadFrame(); err == io.EOF {
			break // the app is gone, and nothing is left
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoAwayOfALaptop(t *testing.T) {
	w := newWorld(t, steals("ada"))
	w.serve("app", says("from the pod"))
	ada := w.wires("ada")
	c := w.wire()
	c.request(1, true, "x-user", "ada")
	c.request(3, true, "x-user", "ada")
	l := <-ada
	await(l, on[*http2.MetaHeadersFrame](3))
	_ = l.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	if f := await(c, anyFrame[*http2.RSTStreamFrame]); f.StreamID != 3 || f.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("%v", f)
	}
	l.headers(1, true, ":status", "200")
	await(c, on[*http2.MetaHeadersFrame](1))
	c.request(5, true, "x-user", "ada")
	l = <-ada // another connection
	await(l, on[*http2.MetaHeadersFrame](1))
	l.headers(1, true, ":status", "200")
	await(c, on[*http2.MetaHeadersFrame](5))
	c.request(7, true)
	await(c, on[*http2.MetaHeadersFrame](7))
}

func TestAppClosesWithoutAWord(t *testing.T) {
	w := newWorld(t)
	app := w.wires("app")
	c := w.wire()
	c.request(1, true)
	s := <-app
	await(s, on[*http2.MetaHeadersFrame](1))
	s.headers(1, false, ":status", "200")
	_ = s.fr.WriteData(1, false, []byte("half"))
	time.Sleep(50 * time.Millisecond)
	_ = s.nc.Close()
	if f := await(c, anyFrame[*http2.DataFrame]); string(f.Data()) != "half" || f.StreamEnded() {
		t.Errorf("%v", f)
	}
	for {
		f, err := c.fr.ReadFrame()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, window := f.(*http2.WindowUpdateFrame); !window {
			t.Errorf("the client sees %v", f)
		}
	}
}

// A server may answer before it has the request, and want no more of it. The
// response is whole, although the client's window lets it through bit by bit.
func TestEarlyAnswerIsWhole(t *testing.T) {
	w := newWorld(t)
	app := w.wires("app")
	c := w.wire(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.request(1, false)
	s := <-app
	await(s, on[*http2.MetaHeadersFrame](1))
	s.headers(1, false, ":status", "413")
	_ = s.fr.WriteData(1, true, []byte("large"))
	_ = s.fr.WriteRSTStream(1, http2.ErrCodeNo)
	await(c, on[*http2.MetaHeadersFrame](1))
	var body []byte
	for range 5 {
		_ = c.fr.WriteWindowUpdate(1, 1)
		f := await(c, anyFrame[*http2.DataFrame])
		if body = append(body, f.Data()...); f.StreamEnded() != (len(body) == 5) {
			t.Errorf("%q, ended: %v", body, f.StreamEnded())
		}
	}
	if f := await(c, anyFrame[*http2.RSTStreamFrame]); f.ErrCode != http2.ErrCodeNo || string(body) != "large" {
		t.Errorf("%q, %v", body, f)
	}
}

// A stream's credit comes back as the app takes the bytes, not before.
func TestCreditIsEndToEnd(t *testing.T) {
	w := newWorld(t)
	app := w.wires("app", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c := w.wire()
	c.request(1, false)
	for sent := 0; sent < windowStart; {
		n := min(maxFrame, windowStart-sent)
		_ = c.fr.WriteData(1, false, make([]byte, n))
		sent += n
	}
	_ = c.fr.WritePing(false, [8]byte{1})
	await(c, func(f *http2.PingFrame) bool { return f.IsAck() })
	s := <-app
	await(s, on[*http2.MetaHeadersFrame](1))
	_ = c.fr.WritePing(false, [8]byte{2})
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID != 0 {
			t.Fatalf("credit for what waits: %v", u)
		}
		if p, ok := f.(*http2.PingFrame); ok && p.Data[0] == 2 {
			break
		}
	}
	_ = s.fr.WriteWindowUpdate(1, 40000)
	got := 0
	for got < 40000 {
		got += len(await(s, on[*http2.DataFrame](1)).Data())
	}
	given := 0
	for given < 30000 {
		given += int(await(c, on[*http2.WindowUpdateFrame](1)).Increment)
	}
	if got != 40000 || given > 40000 {
		t.Errorf("took %d, gave %d", got, given)
	}
}

// Whoever breaks the rules hears what a server says to that.
func TestBrokenRules(t *testing.T) {
	block := func(c *wire, end bool, b []byte) {
		_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: end})
	}
	for name, test := range map[string]struct {
		send func(c *wire)
		want http2.ErrCode
	}{
		"data on no stream":   {func(c *wire) { _ = c.fr.WriteData(1, true, nil) }, http2.ErrCodeProtocol},
		"even stream":         {func(c *wire) { c.request(2, true) }, http2.ErrCodeProtocol},
		"push":                {func(c *wire) { _ = c.fr.WriteRawFrame(http2.FramePushPromise, 4, 1, make([]byte, 4)) }, http2.ErrCodeProtocol},
		"bad compression":     {func(c *wire) { block(c, true, []byte{0xff, 0xff, 0xff}) }, http2.ErrCodeCompression},
		"cut compression":     {func(c *wire) { block(c, true, []byte{0x40, 0x0a, 'x'}) }, http2.ErrCodeCompression},
		"padding over header": {func(c *wire) { _ = c.fr.WriteRawFrame(http2.FrameHeaders, 0xc, 1, []byte{9, 0x82}) }, http2.ErrCodeProtocol},
		"large frame":         {func(c *wire) { _ = c.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1)) }, http2.ErrCodeFrameSize},
		"large window":        {func(c *wire) { _ = c.fr.WriteWindowUpdate(0, windowMax) }, http2.ErrCodeFlowControl},
		"data in headers":     {func(c *wire) { block(c, false, []byte{0x82}); _ = c.fr.WriteData(1, false, nil) }, http2.ErrCodeProtocol},
		"continuations": {func(c *wire) {
			block(c, false, []byte{0x82})
			for range maxContinuations + 1 {
				_ = c.fr.WriteContinuation(1, false, nil)
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"settings": {func(c *wire) {
			for range maxSettings + 2 {
				_ = c.fr.WriteSettings()
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"priorities": {func(c *wire) {
			for range maxNoise + 1 {
				_ = c.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"rapid reset": {func(c *wire) {
			for id := uint32(1); id < 2*maxResets+4; id += 2 {
				c.request(id, false)
				_ = c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"made to reset": {func(c *wire) {
			for id := uint32(1); id < 2*maxResets+4; id += 2 {
				c.request(id, false)
				_ = c.fr.WriteWindowUpdate(id, 0)
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"too much for the connection": {func(c *wire) {
			for id := uint32(1); id < 100; id += 2 {
				c.request(id, false)
				for range 3 {
					_ = c.fr.WriteData(id, false, make([]byte, maxFrame))
				}
			}
		}, http2.ErrCodeFlowControl},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			app := w.wires("app", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			c := w.wire()
			await(c, anyFrame[*http2.SettingsFrame])
			go func() { _, _ = io.Copy(io.Discard, (<-app).nc) }()
			test.send(c)
			if f := await(c, anyFrame[*http2.GoAwayFrame]); f.ErrCode != test.want {
				t.Errorf("%v, want %v", f, test.want)
			}
		})
	}
}

// A stream that breaks the rules ends alone.
func TestBrokenStreams(t *testing.T) {
	w := newWorld(t)
	w.serve("app", echo)
	c := w.wire()
	id := uint32(1)
	for _, test := range []struct {
		send func()
		want http2.ErrCode
	}{
		{func() { c.request(id, false); _ = c.fr.WriteWindowUpdate(id, windowMax) }, http2.ErrCodeFlowControl},
		{func() { c.request(id, false); c.headers(id, false, "x", "y") }, http2.ErrCodeProtocol},
		{func() { c.request(id, false); _ = c.fr.WriteWindowUpdate(id, 0) }, http2.ErrCodeProtocol},
	} {
		test.send()
		if f := await(c, anyFrame[*http2.RSTStreamFrame]); f.StreamID != id || f.ErrCode != test.want {
			t.Errorf("%v, want %v on %d", f, test.want, id)
		}
		id += 2
	}
	c.headers(id, true, ":method", "GET", ":scheme", "http", ":path", "/", "x", strings.Repeat("a", 50000), "y", strings.Repeat("a", 20000))
	if h := await(c, on[*http2.MetaHeadersFrame](id)); h.PseudoValue("status") != "431" {
		t.Errorf("a large head: %v", h.Fields)
	}
	id += 2
	c.request(id, true)
	if h := await(c, on[*http2.MetaHeadersFrame](id)); h.PseudoValue("status") != "200" {
		t.Errorf("after all that: %v", h.Fields)
	}
}

func TestLaptopThatSaysNothingGivesWay(t *testing.T) {
	rule := steals("ada")
	rule.ToApp = true
	rule.ClientAddress = steer.ClientByHeader
	w := newWorld(t, rule)
	w.serve("app", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-For") != "" {
			t.Error("what is added for the laptop reaches the app")
		}
		echo(rw, r)
	})
	ada := w.wires("ada")
	go func() {
		l := <-ada
		if h := await(l, on[*http2.MetaHeadersFrame](1)); h.RegularFields()[len(h.RegularFields())-1].Value != "127.0.0.1" {
			t.Errorf("the laptop got %v", h.Fields)
		}
		_ = l.nc.Close()
	}()
	if _, got := w.do(w.client(), "POST", "/", bytes.NewReader(nil), "X-User", "ada"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestEverythingEndsWithTheContext(t *testing.T) {
	w := newWorld(t, steals("ada"))
	w.wires("app")
	w.raw("ada", func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }) // never says its SETTINGS
	c := w.wire()
	await(c, anyFrame[*http2.SettingsFrame])
	c.request(1, true, "x-user", "ada")
	c.request(3, true)
	time.Sleep(20 * time.Millisecond)
	w.cancel() // the world waits for Serve to return
	var err error
	for err == nil {
		_, err = c.fr.ReadFrame()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client's connection is still open")
	}
}

// A laptop gets as many streams as it allows, 256 at most, and the app is not
// concerned.
func TestStreamsOfARule(t *testing.T) {
	for name, test := range map[string]struct {
		settings []http2.Setting
		sent     int
		want     uint32 // the first stream that is refused
	}{
		"by contract": {nil, maxRuleStreams + 1, 2*maxRuleStreams + 1},
		"its own":     {[]http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, steals("ada"))
			app := w.wires("app")
			ada := w.wires("ada", test.settings...)
			c := w.wire()
			c.request(1, false, "x-user", "ada")
			await(<-ada, on[*http2.MetaHeadersFrame](1)) // it has said its SETTINGS
			id := uint32(3)
			for ; id < uint32(2*test.sent); id += 2 {
				c.request(id, false, "x-user", "ada")
			}
			if f := await(c, anyFrame[*http2.RSTStreamFrame]); f.StreamID != test.want || f.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("%v, want %d", f, test.want)
			}
			c.request(id, true)
			await(<-app, on[*http2.MetaHeadersFrame](1))
		})
	}
}

// A laptop that breaks the protocol is told, and its requests are answered at once.
func TestLaptopBreaksTheProtocol(t *testing.T) {
	w := newWorld(t, steals("ada"))
	w.wires("app")
	ada := w.wires("ada")
	c := w.wire()
	c.request(1, true, "x-user", "ada")
	l := <-ada
	await(l, on[*http2.MetaHeadersFrame](1))
	_ = l.fr.WriteRawFrame(http2.FramePushPromise, 4, 1, []byte{0, 0, 0, 2})
	if h := await(c, on[*http2.MetaHeadersFrame](1)); h.PseudoValue("status") != "502" {
		t.Errorf("%v", h.Fields)
	}
	if f := await(l, anyFrame[*http2.GoAwayFrame]); f.ErrCode != http2.ErrCodeProtocol {
		t.Errorf("%v", f)
	}
}

// Interim responses have no window, so there is a limit.
func TestEndlessInterimResponses(t *testing.T) {
	w := newWorld(t)
	app := w.wires("app")
	c := w.wire()
	c.request(1, true)
	s := <-app
	await(s, on[*http2.MetaHeadersFrame](1))
	for range maxInterim + 1 {
		s.headers(1, false, ":status", "103")
	}
	if f := await(s, anyFrame[*http2.RSTStreamFrame]); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("%v", f)
	}
	await(c, anyFrame[*http2.RSTStreamFrame])
}

// What the laptop hears is where the client is, if its rule wants that.
func TestProxyProtocolComesFirst(t *testing.T) {
	rule := steals("ada")
	rule.ClientAddress = steer.ClientByProxy
	w := newWorld(t, rule)
	w.wires("app")
	heard := make(chan string, 1)
	w.raw("ada", func(nc net.Conn) {
		b := make([]byte, 28+len(http2.ClientPreface))
		_, _ = io.ReadFull(nc, b)
		heard <- string(b)
	})
	c := w.wire()
	c.request(1, true, "x-user", "ada")
	want := string(steer.AppendProxyHeader(nil, c.nc.LocalAddr(), c.nc.RemoteAddr())) + http2.ClientPreface
	if got := <-heard; got != want {
		t.Errorf("the laptop heard %q, want %q", got, want)
	}
}
