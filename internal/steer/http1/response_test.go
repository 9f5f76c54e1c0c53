package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var responses = []struct {
	name, method, text, rest string
	status                   int
}{
	{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 ", 200},
	{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n", "HTTP", 200},
	{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP", 200},
	{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP", 204},
	{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "HTTP", 304},
	{"no reason", "GET", "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", "", 404},
	{"informational", "PUT", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\na", "", 201},
	{"upgrade", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "\x81\x00", 101},
	{"tunnel", "CONNECT", "HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0", 200},
}

type followed struct {
	Response Response
	N        int
	Done     bool
	Err      string
}

func follow(method string, pieces ...[]byte) followed {
	f := followed{Response: Response{Method: method}}
	for _, p := range pieces {
		n, done, err := f.Response.Feed(p)
		f.N += n
		if f.Done = done; err != nil {
			f.Err = err.Error()
		}
		if done || err != nil {
			break
		}
	}
	f.Response.head = nil
	return f
}

func TestResponse(t *testing.T) {
	for _, c := range responses {
		for n := range len(c.text) {
			if got := follow(c.method, []byte(c.text[:n])); got.Done || got.Err != "" {
				t.Fatalf("%s: %d bytes: %+v", c.name, n, got)
			}
			got := follow(c.method, []byte(c.text[:n]), []byte(c.text[n:]+c.rest))
			if !got.Done || got.N != len(c.text) || got.Response.Status != c.status {
				t.Fatalf("%s: cut at %d: %+v", c.name, n, got)
			}
		}
	}
}

func TestResponseUntilEnd(t *testing.T) {
	for _, text := range []string{"HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"} {
		got := follow("GET", []byte(text))
		if got.Done || got.N != len(text) || !got.Response.UntilEnd || got.Response.Persistent {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestDoubtfulResponses(t *testing.T) {
	for _, text := range []string{
		"SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/1.1 200 OK\n\n",
		"HTTP/2 200 OK\r\n\r\n",
		"HTTP/1.1 99 OK\r\n\r\n",
		"HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1 20x OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx",
	} {
		if got := follow("GET", []byte(text)); got.Err == "" {
			t.Errorf("%q: taken", text)
		}
	}
}

// Whatever we take, net/http takes for the same, in whatever pieces it comes.
func FuzzResponse(f *testing.F) {
	for _, c := range responses {
		f.Add(c.method == "HEAD", []byte(c.text+c.rest), uint16(9))
	}
	f.Add(false, []byte("HTTP/1.0 200 OK\r\n\r\nabc"), uint16(20))
	f.Fuzz(func(t *testing.T, head bool, b []byte, at uint16) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		got := follow(method, b)
		i := int(at) % (len(b) + 1)
		cut := follow(method, b[:i], b[i:])
		if got.Err != "" { // how much of a head was taken before does matter to nobody
			got.N, cut.N = 0, 0
		}
		if diff := cmp.Diff(got, cut, cmp.AllowUnexported(Response{}, Body{}, scanner{})); diff != "" {
			t.Fatal(diff)
		}
		if !got.Done || got.Response.Upgraded || len(b) > 8<<10 {
			return
		}
		r := bufio.NewReaderSize(bytes.NewReader(b), 1<<16)
		want, err := http.ReadResponse(r, &http.Request{Method: method})
		for err == nil && want.StatusCode/100 == 1 {
			want, err = http.ReadResponse(r, &http.Request{Method: method})
		}
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		if _, err := io.Copy(io.Discard, want.Body); err != nil {
			t.Fatalf("net/http: body: %v", err)
		}
		rest, _ := io.ReadAll(r)
		if len(b)-len(rest) != got.N || want.StatusCode != got.Response.Status {
			t.Fatalf("net/http: %d bytes, %d; we: %+v", len(b)-len(rest), want.StatusCode, got)
		}
	})
}
