package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/steer/http1/corpus"
)

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
	for _, c := range corpus.Responses {
		for n := range len(c.Text) {
			if got := follow(c.Method, []byte(c.Text[:n])); got.Done || got.Err != "" {
				t.Fatalf("%s: %d bytes: %+v", c.Name, n, got)
			}
			got := follow(c.Method, []byte(c.Text[:n]), []byte(c.Text[n:]+c.Rest))
			if !got.Done || got.N != len(c.Text) || got.Response.Status != c.Status {
				t.Fatalf("%s: cut at %d: %+v", c.Name, n, got)
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
	for _, text := range corpus.DoubtfulResponses {

		if got := follow("GET", []byte(text)); got.Err == "" {
			t.Errorf("%q: taken", text)
		}
	}
}

// Whatever we take, net/http takes for the same, in whatever pieces it comes.
func FuzzResponse(f *testing.F) {
	for _, c := range corpus.Responses {
		f.Add(c.Method == "HEAD", []byte(c.Text+c.Rest), uint16(9))
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
