package inbound

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

func TestInspectionsInWords(t *testing.T) {
	at := time.Date(2026, 3, 2, 10, 2, 11, 418e6, time.Local)
	proxied := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\x0a\xf4\x00\x07\x0a\xf4\x00\x08\x9c\x40\x1f\x90"
	var out bytes.Buffer
	err := printInspections(&out, localapi.NewInspections("web-8080", []localapi.Inspection{
		{Time: at, Pod: "web-1", Over: true, Forgotten: 2, Exchanges: []localapi.Exchange{
			{Time: at.Add(time.Second), In: []byte("POST /pay HTTP/1.1\r\nHost: web\r\nX: a\x1b[2J\r\n\r\n{\"n\": 1}"), Out: []byte("HTTP/1.1 200 OK\r\n\r\nfine\n"), OutMore: 2048},
			{In: []byte("GET /logo HTTP/1.1\r\nHost: web\r\n\r\n"), Out: []byte("HTTP/1.1 200\r\nContent-Type: image/png\r\n\r\n\x89PNG")},
			{In: []byte("the rest of a body\n"), Out: bytes.Repeat([]byte("y"), 5<<10)},
		}},
		{Time: at, Pod: "web-2", Exchanges: []localapi.Exchange{{In: []byte("Q\x00\x00\x00\x0dselect 1"), Out: nil}, {In: []byte(proxied + "GET / HTTP/1.0\r\n")}}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `connection by web-1 at 10:02:11.418, over, what was before 10:02:12.418 is forgotten
> POST /pay HTTP/1.1
> Host: web
> X: a\x1b[2J
> 
> {"n": 1}
< HTTP/1.1 200 OK
< 
< fine
< ... 2.0 KiB more, not kept
> GET /logo HTTP/1.1
> Host: web
> 
< HTTP/1.1 200
< Content-Type: image/png
< 
< 00000000  89 50 4e 47                                       |.PNG|
> the rest of a body
< ` + strings.Repeat("y", 4<<10) + `
< ... 1.0 KiB more, see podnet steer inspect -o json

connection by web-2 at 10:02:11.418, open
> 00000000  51 00 00 00 0d 73 65 6c  65 63 74 20 31           |Q....select 1|
> 00000000  0d 0a 0d 0a 00 0d 0a 51  55 49 54 0a 21 11 00 0c  |.......QUIT.!...|
> 00000010  0a f4 00 07 0a f4 00 08  9c 40 1f 90              |.........@..|
> GET / HTTP/1.0
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What is printed does nothing to a terminal, whatever is sent.
func FuzzInspectionIsSafe(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nA: \x1b]0;x\x07\r\n\r\n\xe2\x80\xaeabc"), []byte("HTTP/1.1 200 OK\n\n\xff\xfe"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"), []byte{})
	f.Fuzz(func(t *testing.T, in, back []byte) {
		var out bytes.Buffer
		c := localapi.Inspection{Exchanges: []localapi.Exchange{{In: in, Out: back}, {In: back, Out: in}}}
		if err := printInspections(&out, localapi.NewInspections("web", []localapi.Inspection{c})); err != nil {
			t.Fatal(err)
		}
		if !words.IsText(out.String()) || strings.Contains(out.String(), "\r") {
			t.Errorf("%q", out.String())
		}
	})
}
