package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	portforwardconst "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	httpstreamspdy "k8s.io/streaming/pkg/httpstream/spdy"
)

// protocol is the port-forward protocol inside SPDY; it is the only one.
const protocol = portforward.PortForwardProtocolV1Name

// DialPod opens a stream to a TCP port on the loopback of a pod, through the
// API server: by WebSocket, or by SPDY where the server or something on the
// way knows no better. ctx is for dialling only.
//
// That nobody listens in the pod comes as the error of the first Read.
func (c *Client) DialPod(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
	conn, err := c.upgrade(ctx, namespace, pod)
	if err != nil {
		if apierrors.IsForbidden(err) {
			p := Permission{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: namespace, Name: pod}
			return nil, &ForbiddenError{User: c.User, Permission: p, Err: err, Ask: c.askConnect(namespace)}
		}
		return nil, c.explain(fmt.Sprintf("forward a port to pod %s/%s at", namespace, pod), err)
	}
	s, err := openWithin(ctx, conn, fmt.Sprintf("%s/%s:%d", namespace, pod, port), port)
	if err != nil {
		return nil, fmt.Errorf("forward a port to pod %s/%s: %w", namespace, pod, err)
	}
	return s, nil
}

// openTime is how long the other side may take to answer for a new stream. It is
// one round trip; a kubelet whose pod is just being replaced never answers.
const openTime = 3 * time.Second

// openWithin is open for openTime, as long as ctx is good. Below, a stream that
// the other side does not answer for is waited for half a minute, whatever
// becomes of the connection; that wait is left to end by itself.
func openWithin(ctx context.Context, conn *connection, remote string, port uint16) (*stream, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openTime, fmt.Errorf("no answer within %v", openTime))
	defer cancel()
	type result struct {
		s   *stream
		err error
	}
	opened := make(chan result) // unbuffered: either it is taken, or nobody waits
	go func() {
		s, err := open(conn, remote, port)
		if err != nil {
			conn.abort()
			_ = conn.Close()
		}
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				_ = s.Close()
			}
		}
	}()
	select {
	case r := <-opened:
		return r.s, r.err
	case <-ctx.Done():
		conn.abort()
		return nil, context.Cause(ctx)
	}
}

// connection is a SPDY connection that can be given up: its own Close wants to
// say goodbye, and waits for ever behind a write that nobody takes.
type connection struct {
	httpstream.Connection
	abort func()
}

func (c *Client) upgrade(ctx context.Context, namespace, pod string) (*connection, error) {
	if !isName(pod) {
		return nil, fmt.Errorf("%q is no name of a pod", pod)
	}
	target := c.rest.Post().AbsPath("/api/v1/namespaces/" + namespace + "/pods/" + pod + "/portforward").URL()
	conn, err := c.overWebSocket(ctx, target)
	// A WebSocket begins with a GET, and that takes the verb "get" in RBAC where
	// SPDY's POST takes "create": a refusal of the one is not one of the other.
	if httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) || apierrors.IsForbidden(err) {
		c.log.Debug("no websocket, trying spdy", "err", err)
		old, oldErr := c.overSPDY(target)
		if oldErr != nil && apierrors.IsForbidden(err) {
			return nil, err // it says so in fewer words
		}
		return old, oldErr
	}
	return conn, err
}

// verdict is what the API server itself said to an upgrade, nil when something
// on the way may not have understood it.
func verdict(err error) error {
	var up *httpstream.UpgradeFailureError
	if errors.As(err, &up) && (apierrors.IsForbidden(up.Cause) || apierrors.IsNotFound(up.Cause) || apierrors.IsUnauthorized(up.Cause)) {
		return up.Cause
	}
	return nil
}

func (c *Client) overWebSocket(ctx context.Context, target *url.URL) (*connection, error) {
	rt, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(klog.NewContext(ctx, klog.Logger{}), http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Negotiate(impatient{rt}, holder, req, portforwardconst.WebsocketsSPDYTunnelingPrefix+protocol)
	if err != nil {
		if said := verdict(err); said != nil {
			return nil, said
		}
		return nil, err
	}
	tunnel := portforward.NewTunnelingConnectionWithLogger(klog.Logger{}, ws)
	conn, err := httpstreamspdy.NewClientConnectionWithPings(tunnel, portforward.PingPeriod)
	if err != nil {
		return nil, err
	}
	return &connection{conn, func() { _ = ws.NetConn().Close() }}, nil
}

func (c *Client) overSPDY(target *url.URL) (*connection, error) {
	rt, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	conn, _, err := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: impatient{rt}, Timeout: requestTimeout}, http.MethodPost, target).Dial(protocol)
	if err != nil {
		return nil, err
	}
	// This old way does not show what is below; a stalled goodbye stays behind
	// until TCP gives up.
	return &connection{conn, func() { go func() { _ = conn.Close() }() }}, nil
}

// open asks for the two streams of one forwarded connection.
func open(conn *connection, remote string, port uint16) (*stream, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errs, err := conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	_ = errs.Close() // our half: we say nothing there
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, data: data, remote: streamAddr(remote), free: make(chan []byte, buffers), full: make(chan []byte, buffers),
		closed: make(chan struct{}), failed: make(chan struct{}), ended: make(chan struct{}), readDeadline: newDeadline(), writeDeadline: newDeadline()}
	for range buffers {
		s.free <- make([]byte, bufferSize)
	}
	s.wg.Add(2)
	go s.readErrors(errs)
	go s.readData()
	return s, nil
}

// The reader keeps at most buffers times bufferSize bytes that nobody has asked
// for yet: enough to keep the wire busy, little enough to keep latency low.
const (
	buffers    = 4
	bufferSize = 64 << 10
)

// stream is one forwarded connection as a net.Conn. The SPDY stream below has
// no deadlines, so a goroutine reads ahead and Read waits with a timer.
type stream struct {
	conn   *connection
	data   httpstream.Stream
	remote streamAddr

	free, full chan []byte
	// ended is closed after the last buffer, with readErr set.
	ended   chan struct{}
	readErr error
	// failed is closed when the pod's side reported podErr.
	failed chan struct{}
	podErr error

	closeOnce sync.Once
	closed    chan struct{}
	wg        sync.WaitGroup

	readDeadline, writeDeadline *deadline

	readMu sync.Mutex
	rest   []byte // unread part of buffer
	buffer []byte
}

// closeGrace is how long Close tries to tell the other side.
const closeGrace = 100 * time.Millisecond

// podErrorGrace is how long the end of the data waits for the reason, which
// comes on another stream.
const podErrorGrace = 200 * time.Millisecond

func (s *stream) readErrors(errs httpstream.Stream) {
	defer s.wg.Done()
	text, _ := io.ReadAll(io.LimitReader(errs, 4096))
	if len(text) > 0 {
		s.podErr = errors.New(oneLine(string(text)))
		close(s.failed)
		return
	}
	// Nothing to report. A timer in Read covers the case that there is.
}

func (s *stream) readData() {
	defer s.wg.Done()
	defer close(s.ended)
	for {
		var b []byte
		select {
		case b = <-s.free:
		case <-s.closed:
			s.readErr = net.ErrClosed
			return
		}
		n, err := s.data.Read(b[:bufferSize])
		if n > 0 {
			s.full <- b[:n] // never blocks: as many places as buffers
		}
		if err != nil {
			s.readErr = err
			return
		}
	}
}

func (s *stream) Read(p []byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	if s.rest = s.rest[n:]; len(s.rest) == 0 {
		s.free <- s.buffer[:bufferSize]
		s.buffer = nil
	}
	return n, nil
}

// next waits for a filled buffer; readMu is held.
func (s *stream) next() error {
	select {
	case <-s.closed:
		return net.ErrClosed
	case <-s.readDeadline.passed():
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case b := <-s.full:
		s.buffer, s.rest = b, b
		return nil
	default:
	}
	select {
	case b := <-s.full:
		s.buffer, s.rest = b, b
		return nil
	case <-s.closed:
		return net.ErrClosed
	case <-s.readDeadline.passed():
		return os.ErrDeadlineExceeded
	case <-s.failed:
		return s.podErr
	case <-s.ended:
	}
	select { // what was read before the end
	case b := <-s.full:
		s.buffer, s.rest = b, b
		return nil
	default:
	}
	return s.end()
}

// end is why the data ended.
func (s *stream) end() error {
	if s.readErr == io.EOF {
		t := time.NewTimer(podErrorGrace)
		defer t.Stop()
		select {
		case <-s.failed:
			return s.podErr
		case <-s.closed:
			return net.ErrClosed
		case <-t.C:
		}
	}
	return s.readErr
}

// Write sends p. A deadline that passes in the middle breaks the stream: half
// of p may be on its way, and SPDY cannot take it back.
func (s *stream) Write(p []byte) (int, error) {
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	case <-s.failed:
		return 0, s.podErr
	case <-s.writeDeadline.passed():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	late := s.writeDeadline.onPass(s.conn.abort)
	n, err := s.data.Write(p)
	if late() {
		return n, os.ErrDeadlineExceeded
	}
	if err != nil {
		select {
		case <-s.failed:
			err = s.podErr
		case <-s.closed:
			err = net.ErrClosed
		default:
		}
	}
	return n, err
}

// Close ends both directions and waits for the goroutines.
func (s *stream) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		// Goodbye, if that can be said at once.
		abort := time.AfterFunc(closeGrace, s.conn.abort)
		_ = s.conn.Close()
		abort.Stop()
	})
	s.wg.Wait()
	return nil
}

func (s *stream) LocalAddr() net.Addr                { return streamAddr("apiserver") }
func (s *stream) RemoteAddr() net.Addr               { return s.remote }
func (s *stream) SetReadDeadline(t time.Time) error  { s.readDeadline.set(t); return nil }
func (s *stream) SetWriteDeadline(t time.Time) error { s.writeDeadline.set(t); return nil }
func (s *stream) SetDeadline(t time.Time) error {
	s.readDeadline.set(t)
	s.writeDeadline.set(t)
	return nil
}

// streamAddr names a pod's port.
type streamAddr string

func (streamAddr) Network() string  { return "portforward" }
func (a streamAddr) String() string { return string(a) }

// deadline is a channel that closes at a time that may be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	c     chan struct{}
}

func newDeadline() *deadline { return &deadline{c: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.c
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.c // the timer has fired: wait until it has closed the channel
	}
	d.timer = nil
	select {
	case <-d.c:
		d.c = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	c := d.c
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(c) })
	} else {
		close(c)
	}
}

// onPass calls f when the deadline passes before stop is called, which says
// whether it did.
func (d *deadline) onPass(f func()) (stop func() bool) {
	d.mu.Lock()
	c, armed := d.c, d.timer != nil
	d.mu.Unlock()
	if !armed {
		return func() bool { return false }
	}
	done := make(chan struct{})
	hit := make(chan bool, 1)
	go func() {
		select {
		case <-c:
			f()
			hit <- true
		case <-done:
			hit <- false
		}
	}()
	return func() bool { close(done); return <-hit }
}
