package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/http1/corpus"
)

const (
	plain       = corpus.Plain
	chunkedHead = corpus.ChunkedHead
)

// parsed is what comes of a request with its body.
type parsed struct {
	Req  Request
	Size int // of both; 0: not complete
	Err  string
}

// feed parses the pieces as they come.
func feed(pieces ...[]byte) parsed {
	var (
		p      RequestParser
		req    Request
		b      []byte
		at     int
		headed bool
	)
	for _, piece := range pieces {
		b = append(b, piece...)
		if !headed {
			var err error
			if req, headed, err = p.Parse(b); err != nil {
				return parsed{Err: err.Error()}
			}
			if !headed {
				continue
			}
			at = req.Size
		}
		n, done, err := req.Body.Feed(b[at:])
		at += n
		if err != nil {
			return parsed{Req: req, Err: fmt.Sprint(err, " at ", at)}
		}
		if done {
			return parsed{Req: req, Size: at}
		}
	}
	return parsed{Req: req}
}

var compare = cmp.AllowUnexported(Body{})

func TestSaneRequests(t *testing.T) {
	for _, c := range corpus.Sane {
		got := feed([]byte(c.Text + c.Rest))
		if got.Err != "" || got.Size != len(c.Text) {
			t.Errorf("%s: %d bytes of %d, %s", c.Name, got.Size, len(c.Text), got.Err)
		}
		for n := 0; n < len(c.Text); n += 1 + len(c.Text)/1000 {
			if got := feed([]byte(c.Text[:n])); got.Size != 0 || got.Err != "" {
				t.Fatalf("%s: %d bytes were enough, %s", c.Name, n, got.Err)
			}
		}
	}
}

func TestRequest(t *testing.T) {
	got := feed([]byte("POST http://Shop/a%20b?q=%zz HTTP/1.1\r\nHost: shop\r\nX-User:  ada \r\nx-user: bob\r\n" +
		"Upgrade: h2c\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\nabc")).Req
	want := Request{
		Head: steer.Head{
			Method: "POST", Target: "http://Shop/a%20b?q=%zz", Host: "Shop", Upgrade: true,
			Fields: []steer.Field{
				{Name: "Host", Value: "shop"}, {Name: "X-User", Value: "ada"}, {Name: "x-user", Value: "bob"},
				{Name: "Upgrade", Value: "h2c"}, {Name: "Connection", Value: "x, Close"}, {Name: "Content-Length", Value: "3"},
			},
		},
		Size: got.Size,
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		text string
		want bool
	}{
		{plain, true},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", false},
		{"GET / HTTP/1.0\r\n\r\n", false},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
	} {
		if got := feed([]byte(c.text)).Req; got.Persistent != c.want {
			t.Errorf("%q: persistent %t", c.text, got.Persistent)
		}
	}
}

func TestDoubt(t *testing.T) {
	check := func(name, text string) {
		var p RequestParser
		req, ok, err := p.Parse([]byte(text))
		if ok && err == nil {
			_, _, err = req.Body.Feed([]byte(text[req.Size:]))
		}
		var doubt Doubt
		if !errors.As(err, &doubt) {
			t.Errorf("%s: taken, %v", name, err)
		}
	}
	for _, c := range corpus.Odd {
		check(c.Name, c.Text)
	}
	for _, c := range corpus.OddBodies {
		check(c.Name, chunkedHead+c.Text)
	}
}

// A program that is no HTTP server need not wait until its client has sent an
// empty line.
func TestDoubtComesEarly(t *testing.T) {
	for _, text := range []string{"SET /a\r\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nA\x00", "\r\n"} {
		if got := feed([]byte(text)); got.Err == "" {
			t.Errorf("%q: no doubt", text)
		}
	}
}

func addSeeds(f *testing.F, add func(string)) {
	for _, c := range corpus.Sane {
		if len(c.Text) < 1000 {
			add(c.Text + c.Rest)
		}
	}
	for _, c := range corpus.Odd {
		if len(c.Text) < 2000 {
			add(c.Text)
		}
	}
	for _, c := range corpus.OddBodies {
		if len(c.Text) < 2000 {
			add(chunkedHead + c.Text)
		}
	}
}

// Whatever we take, net/http takes for the same.
func FuzzRequest(f *testing.F) {
	addSeeds(f, func(s string) { f.Add([]byte(s)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		got := feed(b)
		if got.Size == 0 || len(b) > 8<<10 { // net/http bounds the overhead of chunks
			return
		}
		r := bufio.NewReaderSize(bytes.NewReader(b), 1<<16)
		want, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		if _, err := io.Copy(io.Discard, want.Body); err != nil {
			t.Fatalf("net/http: body: %v", err)
		}
		rest, _ := io.ReadAll(r)
		if len(b)-len(rest) != got.Size {
			t.Fatalf("net/http takes %d bytes, we %d", len(b)-len(rest), got.Size)
		}
		if got.Req.Method != want.Method || got.Req.Target != want.RequestURI || got.Req.Host != want.Host {
			t.Fatalf("%+v, net/http: %+v", got.Req, want)
		}
		if got.Req.Persistent == want.Close {
			t.Fatalf("persistent: %t", got.Req.Persistent)
		}
	})
}

// The pieces in which bytes come make no difference.
func FuzzSplit(f *testing.F) {
	addSeeds(f, func(s string) { f.Add([]byte(s), uint16(7), uint16(30)) })
	f.Fuzz(func(t *testing.T, b []byte, x, y uint16) {
		i := int(x) % (len(b) + 1)
		j := i + int(y)%(len(b)-i+1)
		whole, cut := feed(b), feed(b[:i], b[i:j], b[j:])
		if diff := cmp.Diff(whole, cut, compare); diff != "" {
			t.Fatal(diff)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	head := []byte("GET /api/v1/carts/17?full=true HTTP/1.1\r\nHost: cart.shop.svc.cluster.local:8080\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nx-user: alice\r\n" +
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nCookie: session=8f14e45fceea167a\r\n\r\n")
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		var p RequestParser
		if _, ok, err := p.Parse(head); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
