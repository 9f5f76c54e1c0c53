package cluster

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gwebsocket "github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/portforward"
	clientportforward "k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"podnet.dev/client/localapi"
)

const portforwardPath = "/api/v1/namespaces/podnet-system/pods/podnet-gateway-0/portforward"

// forwards makes the API server forward ports to pod, which gets the data
// stream and answers with an error text, as a kubelet does.
func (f *fakeAPI) forwards(webSocket bool, pod func(port string, data io.ReadWriteCloser) string) {
	f.forwardsTo(portforwardPath, webSocket, pod)
}

// forwardsTo is forwards for the pod of a path.
func (f *fakeAPI) forwardsTo(path string, webSocket bool, pod func(port string, data io.ReadWriteCloser) string) {
	accept := func(conn httpstream.Connection, streams chan httpstream.Stream) {
		var errs, data httpstream.Stream
		for errs == nil || data == nil {
			select {
			case s := <-streams:
				if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
					errs = s
				} else {
					data = s
				}
			case <-conn.CloseChan():
				return
			}
		}
		if text := pod(data.Headers().Get(corev1.PortHeader), data); text != "" {
			fmt.Fprint(errs, text)
		}
		_ = data.Close()
		_ = errs.Close()
		<-conn.CloseChan()
	}
	collect := func() (chan httpstream.Stream, httpstream.NewStreamHandler) {
		streams := make(chan httpstream.Stream, 2)
		return streams, func(s httpstream.Stream, _ <-chan struct{}) error { streams <- s; return nil }
	}
	f.on["GET "+path] = func(w http.ResponseWriter, r *http.Request) {
		if !webSocket {
			http.Error(w, "a proxy that does not know websockets", http.StatusBadRequest)
			return
		}
		up := gwebsocket.Upgrader{Subprotocols: []string{portforward.WebsocketsSPDYTunnelingPrefix + clientportforward.PortForwardProtocolV1Name}}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			f.t.Error(err)
			return
		}
		streams, handler := collect()
		conn, err := spdy.NewServerConnection(clientportforward.NewTunnelingConnection("server", ws), handler)
		if err != nil {
			f.t.Error(err)
			return
		}
		defer conn.Close()
		accept(conn, streams)
	}
	f.on["POST "+path] = func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{clientportforward.PortForwardProtocolV1Name}); err != nil {
			f.t.Error(err)
			return
		}
		streams, handler := collect()
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, handler)
		if conn == nil {
			return
		}
		defer conn.Close()
		accept(conn, streams)
	}
}

func (f *fakeAPI) dial() net.Conn {
	f.t.Helper()
	conn, err := f.client().DialPod(f.t.Context(), "podnet-system", "podnet-gateway-0", 51821)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func echo(_ string, data io.ReadWriteCloser) string {
	_, _ = io.Copy(data, data)
	return ""
}

func TestStreamCarriesBytes(t *testing.T) {
	for _, webSocket := range []bool{true, false} {
		t.Run(map[bool]string{true: "websocket", false: "spdy fall-back"}[webSocket], func(t *testing.T) {
			f := newFakeAPI(t)
			var port string
			f.forwards(webSocket, func(p string, data io.ReadWriteCloser) string { port = p; return echo(p, data) })
			conn := f.dial()
			sent := make([]byte, 3<<20)
			_, _ = rand.Read(sent)
			var wg sync.WaitGroup
			wg.Go(func() {
				for b := sent; len(b) > 0; {
					n, err := conn.Write(b[:min(len(b), 17000)])
					if err != nil {
						t.Error(err)
						return
					}
					b = b[n:]
				}
			})
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read: %v, equal %v", err, bytes.Equal(got, sent))
			}
			wg.Wait()
			if port != "51821" || conn.RemoteAddr().String() != "podnet-system/podnet-gateway-0:51821" {
				t.Errorf("port %s, remote %s", port, conn.RemoteAddr())
			}
		})
	}
}

func TestNobodyListensInThePod(t *testing.T) {
	f := newFakeAPI(t)
	const text = "error forwarding port 51821 to pod: dial tcp4 127.0.0.1:51821: connect: connection refused"
	f.forwards(true, func(string, io.ReadWriteCloser) string { return text })
	_, err := f.dial().Read(make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestPodGoesAway(t *testing.T) {
	f := newFakeAPI(t)
	f.forwards(true, func(_ string, data io.ReadWriteCloser) string { fmt.Fprint(data, "last words"); return "" })
	got, err := io.ReadAll(f.dial())
	if err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestStreamDeadlines(t *testing.T) {
	f := newFakeAPI(t)
	f.forwards(true, echo)
	conn := f.dial()
	for range 3 { // and it goes on working
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
			t.Fatalf("read %q, %v", b, err)
		}
	}
}

func TestWriteDeadlineOnAStalledWire(t *testing.T) {
	f := newFakeAPI(t)
	release := make(chan struct{})
	f.forwards(true, func(string, io.ReadWriteCloser) string { <-release; return "" })
	t.Cleanup(func() { close(release) })
	conn := f.dial()
	if err := conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for {
		if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			break
		}
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCloseWakesReader(t *testing.T) {
	f := newFakeAPI(t)
	f.forwards(true, echo)
	conn := f.dial()
	done := make(chan error, 1)
	go func() { _, err := conn.Read(make([]byte, 1)); done <- err }()
	time.Sleep(10 * time.Millisecond)
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestPortForwardForbidden(t *testing.T) {
	f := newFakeAPI(t)
	forbidden := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "pods \"podnet-gateway-0\" is forbidden")
	}
	f.forwards(true, echo)
	f.on["GET "+portforwardPath] = forbidden // no verb get: SPDY needs none
	if conn, err := f.client().DialPod(t.Context(), "podnet-system", "podnet-gateway-0", 51821); err != nil {
		t.Error(err)
	} else if err := conn.Close(); err != nil {
		t.Error(err)
	}
	f.on["POST "+portforwardPath] = forbidden
	_, err := f.client().DialPod(t.Context(), "podnet-system", "podnet-gateway-0", 51821)
	explained(t, err, localapi.CodeForbidden, "alice may not create pods/portforward in namespace podnet-system", "podnet-connect")
}
