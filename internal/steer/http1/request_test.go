package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podnet.dev/internal/steer"
)

const plain = "GET /a?b=c HTTP/1.1\r\nHost: shop\r\n\r\n"

// sane is what we take, and how many bytes of it are the request.
var sane = []struct{ name, text, rest string }{
	{"plain", plain, "GET"},
	{"1.0 without a host", "GET / HTTP/1.0\r\n\r\n", "x"},
	{"absolute", "GET http://shop:80/a HTTP/1.1\r\nHost: SHOP:80\r\n\r\n", ""},
	{"IPv6", "GET https://[fd00::1]:8080 HTTP/1.1\r\nHost: [fd00::1]:8080\r\n\r\n", ""},
	{"asterisk", "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", ""},
	{"length", "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length:\t05 \r\n\r\nhello", "GET / "},
	{"nothing", "PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n", "\r\n"},
	{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "\r\n"},
	{"trailers", "POST / HTTP/1.1\r\nHost: a\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC:\r\n\r\n", "0\r\n"},
	{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "\x81"},
	{"obs-text", "GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\t b\r\n\r\n", ""},
	{"head of 64 KiB", padded(steer.MaxHead), "G"},
}

// odd is what we doubt.
var odd = []struct{ name, text string }{
	{"CL and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"TE and CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
	{"one length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc"},
	{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n"},
	{"hex length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc"},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"},
	{"other coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
	{"coding in capitals", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"},
	{"coding twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
	{"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\vchunked\r\n\r\n"},
	{"bare LF", "GET / HTTP/1.1\nHost: a\n\n"},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"},
	{"bare CR", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"},
	{"fold", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"},
	{"fold first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
	{"NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"},
	{"DEL", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"},
	{"space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc"},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"},
	{"name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n"},
	{"name with high bytes", "GET / HTTP/1.1\r\nHost: a\r\nCont\xc3\xa9: b\r\n\r\n"},
	{"head too long", padded(steer.MaxHead + 1)},
	{"too many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", steer.MaxFields) + "\r\n"},
	{"1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
	{"0.9", "GET /\r\n"},
	{"2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{"lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n"},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"},
	{"tab", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"},
	{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"no host", "GET / HTTP/1.1\r\n\r\n"},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
	{"host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{"host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
	{"other host in the target", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"},
	{"no path", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"target with high bytes", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"bad escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"},
	{"trailer that frames", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: a, Content-Length\r\n\r\n0\r\n\r\n"},
}

// oddBodies come behind a head that says chunked.
var oddBodies = []struct{ name, text string }{
	{"no digits", "\r\n"},
	{"sign", "+1\r\na\r\n0\r\n\r\n"},
	{"prefix", "0x1\r\na\r\n0\r\n\r\n"},
	{"space", "1 \r\na\r\n0\r\n\r\n"},
	{"17 digits", "00000000000000001\r\na\r\n0\r\n\r\n"},
	{"too large", "8000000000000000\r\n"},
	{"bare LF", "1\na\r\n0\r\n\r\n"},
	{"bare LF behind the data", "1\r\na\n0\r\n\r\n"},
	{"data too long", "1\r\nab\r\n0\r\n\r\n"},
	{"long extension", "1;" + strings.Repeat("a", maxExtension+1) + "\r\na\r\n0\r\n\r\n"},
	{"LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n"},
	{"bare LF at the end", "0\r\n\n"},
	{"trailer without colon", "0\r\nA\r\n\r\n"},
	{"fold in a trailer", "0\r\nA: b\r\n c\r\n\r\n"},
	{"too many trailers", "0\r\n" + strings.Repeat("A: b\r\n", steer.MaxFields+1) + "\r\n"},
	{"trailers too long", "0\r\nA: " + strings.Repeat("b", steer.MaxHead) + "\r\n\r\n"},
}

const chunkedHead = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

// padded is a request whose head has n bytes.
func padded(n int) string {
	const begin, end = "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n"
	return begin + strings.Repeat("x", n-len(begin)-len(end)) + end
}

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
	for _, c := range sane {
		got := feed([]byte(c.text + c.rest))
		if got.Err != "" || got.Size != len(c.text) {
			t.Errorf("%s: %d bytes of %d, %s", c.name, got.Size, len(c.text), got.Err)
		}
		for n := 0; n < len(c.text); n += 1 + len(c.text)/1000 {
			if got := feed([]byte(c.text[:n])); got.Size != 0 || got.Err != "" {
				t.Fatalf("%s: %d bytes were enough, %s", c.name, n, got.Err)
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
	for _, c := range odd {
		check(c.name, c.text)
	}
	for _, c := range oddBodies {
		check(c.name, chunkedHead+c.text)
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
	for _, c := range sane {
		if len(c.text) < 1000 {
			add(c.text + c.rest)
		}
	}
	for _, c := range odd {
		if len(c.text) < 2000 {
			add(c.text)
		}
	}
	for _, c := range oddBodies {
		if len(c.text) < 2000 {
			add(chunkedHead + c.text)
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
