package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// once is a connection whose request is over.
func once(t *testing.T, w *world, request string) Inspection {
	t.Helper()
	c := w.mustDial(20000)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	var last Inspection
	until(t, "the connection is kept", func() bool {
		all := w.relay.Inspected("web")
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		return last.Over && len(last.Exchanges) > 0
	})
	return last
}

// TestReplay: a request reaches the local program once more, byte for byte, and what
// that answers now is kept as another connection.
func TestReplay(t *testing.T) {
	n := 0
	got := make(chan string, 9)
	port := listen(t, "127.0.0.1", func(c net.Conn) {
		var raw bytes.Buffer
		q, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &raw)))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, q.Body)
		got <- raw.String()
		n++
		// It keeps the connection, as programs do: the answer's end is in its head.
		fmt.Fprintf(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nanswer %d", n)
		_, _ = io.Copy(io.Discard, c)
	})
	web := rule("web", 20000, port)
	web.Inspect = true
	w := newWorld(t, web)
	const request = "POST /pay?x=1 HTTP/1.1\r\nHost: web\r\nX-User: alice\r\nContent-Length: 10\r\n\r\ntwo apples"
	was := once(t, w, request)
	<-got

	again, err := w.relay.Replay(t.Context(), "web", was.Began, was.Exchanges[0].Began)
	if err != nil {
		t.Fatal(err)
	}
	if sent := <-got; sent != request {
		t.Errorf("the program got %q", sent)
	}
	if !again.Over || !again.Replay.Equal(was.Began) || len(again.Exchanges) != 1 || !strings.HasSuffix(string(again.Exchanges[0].Out), "answer 2") || string(again.Exchanges[0].In) != request {
		t.Errorf("%+v", again)
	}
	if all := w.relay.Inspected("web"); len(all) != 2 || !all[1].Replay.Equal(was.Began) || !all[0].Replay.IsZero() {
		t.Errorf("kept are %+v", all)
	}
	// A replay is a request like any other.
	if _, err := w.relay.Replay(t.Context(), "web", again.Began, again.Exchanges[0].Began); err != nil {
		t.Error(err)
	}

	if _, err := w.relay.Replay(t.Context(), "web", was.Began, was.Began.Add(-time.Hour)); !errors.Is(err, ErrForgotten) {
		t.Errorf("an exchange that there is not: %v", err)
	}
	if _, err := w.relay.Replay(t.Context(), "other", was.Began, was.Exchanges[0].Began); !errors.Is(err, ErrForgotten) {
		t.Errorf("a rule that there is not: %v", err)
	}
	web.Local = closedPort(t)
	w.relay.SetRules([]Rule{web})
	if _, err := w.relay.Replay(t.Context(), "web", was.Began, was.Exchanges[0].Began); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestWhatCanBeReplayed(t *testing.T) {
	for sent, want := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: web\r\n\r\n":                                                   true,
		string(noClient) + "GET / HTTP/1.0\r\n\r\n":                                             true,
		"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n": true,
		"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nfour":                         false,
		"GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n":                false,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                                      false,
		"GET / HTTP/1.1\r\nHos":                                                                 false,
		"":                                                                                      false,
	} {
		if _, err := whole([]byte(sent)); (err == nil) != want {
			t.Errorf("%q: %v", sent, err)
		}
	}
}

// A program that wants to know clients by the PROXY protocol gets a header on each
// connection, the one of a later request, too.
func TestReplayHasItsProxyHeader(t *testing.T) {
	at := time.Now()
	all := []Inspection{{Began: at, Exchanges: []Exchange{
		{Began: at, In: append(bytes.Clone(noClient), "GET /1 HTTP/1.1\r\n\r\n"...)}, {Began: at.Add(1), In: []byte("GET /2 HTTP/1.1\r\n\r\n"), InMore: 3},
	}}}
	for n, e := range all[0].Exchanges {
		sent, more, err := find(all, at, e.Began)
		if want := fmt.Sprintf("%sGET /%d HTTP/1.1\r\n\r\n", noClient, n+1); err != nil || string(sent) != want || more != e.InMore {
			t.Errorf("%q, %d more, %v; want %q", sent, more, err, want)
		}
	}
}
