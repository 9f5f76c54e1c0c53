package serve

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// The ports of the app that all kinds of things are said to.
const (
	mixWeb     = 8080 // HTTP/1.1, and what it is upgraded to
	mixStreams = 8081 // HTTP/2 without TLS
	mixBytes   = 8082 // a plan, and what it says
	mixSealed  = 8083 // the same in TLS
	mixLines   = 8084 // lines, and the app speaks first
)

// mixPatience is how long a connection may be open: all the others have to be served too.
const mixPatience = 2 * time.Minute

// mixApp serves what mixers ask for.
type mixApp struct {
	t       *testing.T
	seed    uint64
	streams *http.Server
	web     *http.Server
	tls     *tls.Config
	book    book
	conns   atomic.Uint64
	past    atomic.Int64 // connections that have not come by way of the agent
}

func startMixApp(t *testing.T, seed uint64) *mixApp {
	t.Helper()
	lent := httptest.NewTLSServer(nil) // for its certificate
	lent.Close()
	a := &mixApp{t: t, seed: seed, tls: &tls.Config{Certificates: lent.TLS.Certificates}}
	a.web, a.streams = &http.Server{Handler: a}, &http.Server{Handler: a, Protocols: onlyHTTP2()}
	var serving sync.WaitGroup
	var listeners []net.Listener
	t.Cleanup(func() {
		a.web.Close()
		a.streams.Close()
		for _, l := range listeners {
			l.Close()
		}
		serving.Wait()
	})
	for port, serve := range a.serves() {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		serving.Go(func() { serve(&mixListener{l, a, port == mixStreams}) })
	}
	return a
}

func onlyHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// serves tells what serves at which port.
func (a *mixApp) serves() map[uint16]func(net.Listener) error {
	return map[uint16]func(net.Listener) error{
		mixWeb:     a.web.Serve,
		mixStreams: a.streams.Serve,
		mixBytes:   a.each(func(c *tally) error { return answer(c, c) }),
		mixSealed: a.each(func(c *tally) error {
			sealed := tls.Server(c, a.tls)
			return answer(sealed, sealed)
		}),
		mixLines: a.each(answerLines),
	}
}

// each serves each connection by f.
func (a *mixApp) each(f func(*tally) error) func(net.Listener) error {
	return func(l net.Listener) error {
		var open sync.WaitGroup
		defer open.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			open.Go(func() {
				defer c.Close()
				if err := f(c.(*tally)); err != nil {
					a.t.Errorf("the app at %s: %v", c.LocalAddr(), err)
				}
			})
		}
	}
}

// mixListener gives the app's ends of connections.
type mixListener struct {
	net.Listener
	app    *mixApp
	framed bool
}

func (l *mixListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(mixPatience))
	if from := c.RemoteAddr().String(); strings.Contains(from, "10.99.1.2") || strings.Contains(from, "fd99:1::2") {
		l.app.past.Add(1)
	}
	return l.app.book.tally(c, cuts(rand.New(rand.NewPCG(l.app.seed, ^l.app.conns.Add(1)))), false, l.framed), nil
}

// cuts has every other connection cut what it sends.
func cuts(r *rand.Rand) *rand.Rand {
	if r.IntN(2) == 0 {
		return nil
	}
	return r
}

// noise is size bytes that a seed stands for.
func noise(seed uint64, size int64) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// ServeHTTP answers "/SEED/SIZE/FRAMING" by so many bytes, having heard the request
// out. With HTTP/2 it does both at once, and enters the request and its answer.
func (a *mixApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		a.upgrade(w)
		return
	}
	var seed uint64
	var size int64
	var framing string
	if _, err := fmt.Sscanf(strings.ReplaceAll(r.URL.Path, "/", " "), " %d %d %s", &seed, &size, &framing); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	up, down := requestHash(r), sha256.New()
	var hear errgroup.Group
	hear.Go(func() error {
		_, err := io.Copy(up, r.Body)
		return err
	})
	if r.ProtoMajor == 1 {
		hear.Wait()
	}
	head := w.Header()
	head.Set("X-Noise", noiseText(seed))
	io.WriteString(down, head.Get("X-Noise"))
	switch framing {
	case byLength:
		head.Set("Content-Length", fmt.Sprint(size))
	case byTrailer:
		head.Set("Trailer", "X-Sum")
	}
	if r.Method != http.MethodHead {
		io.Copy(io.MultiWriter(w, down), noise(seed, size))
	}
	if framing == byTrailer {
		head.Set("X-Sum", noiseSum(seed))
		io.WriteString(down, head.Get("X-Sum"))
	}
	if err := hear.Wait(); err != nil {
		a.t.Errorf("the app heard: %v", err)
	}
	io.WriteString(up, r.Trailer.Get("X-Sum"))
	if r.ProtoMajor == 2 {
		a.book.enter(up, down)
	}
}

// How the end of a body is told.
const (
	byLength  = "length"
	byChunks  = "chunks"
	byTrailer = "trailer"
)

// requestHash has the head of a request, as far as those who talk can choose it.
func requestHash(r *http.Request) hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s\n", r.Method, r.URL.Path, r.Header.Get("X-Noise"))
	return h
}

// noiseText is a header's value, of up to 4,094 letters.
func noiseText(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, r.IntN(2<<r.IntN(11)))
	io.ReadFull(noise(seed, int64(len(b))), b)
	return hex.EncodeToString(b)
}

// noiseSum is a trailer's value. Go's HTTP/1 takes no trailers above 4 KiB.
func noiseSum(seed uint64) string {
	text := noiseText(^seed)
	return text[:min(len(text), 1000)]
}

// upgrade makes an HTTP/1.1 connection one of bytes, as WebSocket does.
func (a *mixApp) upgrade(w http.ResponseWriter) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		a.t.Errorf("the app: %v", err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(mixPatience))
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mix\r\n\r\n")
	if err := answer(c.(*tally), buffered); err != nil {
		a.t.Errorf("the app, upgraded: %v", err)
	}
}

// plan is how a connection of bytes goes on. The client sends it first.
type plan struct {
	Turn     turn // the client's
	Seed     uint64
	Up, Down int64
}

// turn is when somebody speaks.
type turn uint8

const (
	atOnce turn = iota // while the other one does
	first              // and hears the other one out then, to whom he said that it is all
	second
)

func (t turn) other() turn { return [...]turn{atOnce, second, first}[t] }

type halfCloser interface {
	io.Writer
	CloseWrite() error
}

// answer is the app's part of a plan.
func answer(c halfCloser, r io.Reader) error {
	var p plan
	if err := binary.Read(r, binary.BigEndian, &p); err != nil {
		return err
	}
	return converse(c, r, noise(^p.Seed, p.Down), p.Turn.other())
}

// converse says all there is to say, and hears the other side out.
func converse(c halfCloser, r, what io.Reader, t turn) error {
	say := func() error {
		_, err := io.Copy(c, what)
		return errors.Join(err, c.CloseWrite())
	}
	hear := func() error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	switch t {
	case first:
		return errors.Join(say(), hear())
	case second:
		return errors.Join(hear(), say())
	}
	var both errgroup.Group
	both.Go(say)
	return errors.Join(hear(), both.Wait())
}

// answerLines greets, and answers "SEED SIZE" by a line of so many bytes.
func answerLines(c *tally) error {
	io.WriteString(c, "220 ready\r\n")
	lines := bufio.NewScanner(c)
	for lines.Scan() && lines.Text() != "QUIT" {
		var seed uint64
		var size int64
		if _, err := fmt.Sscan(lines.Text(), &seed, &size); err != nil {
			return fmt.Errorf("line %.40q: %w", lines.Text(), err)
		}
		b, _ := io.ReadAll(noise(seed, size))
		if _, err := fmt.Fprintf(c, "250 %x\r\n", b); err != nil {
			return err
		}
	}
	io.WriteString(c, "221 bye\r\n")
	return lines.Err()
}
