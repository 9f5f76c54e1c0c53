package steer

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestSniff(t *testing.T) {
	for in, want := range map[string]Kind{
		"":                                 Unknown,
		"G":                                Unknown,
		"GET":                              Unknown,
		"GET ":                             Unknown,
		"GET /":                            HTTP1,
		"GET / HTTP/1.1\r\nHost: a\r\n":    HTTP1,
		"X-0_~ /a":                         HTTP1,
		"GET h":                            Unknown,
		"GET HTTP://a":                     HTTP1,
		"GET https://":                     HTTP1,
		"GET https:/ ":                     Other,
		"GET ftp://a":                      Other,
		"GET  /":                           Other,
		"GET\t/":                           Other,
		" GET /":                           Other,
		"\r\nGET /":                        Other,
		"GET\r\n":                          Other,
		"OPTIONS *":                        Unknown,
		"OPTIONS * HTTP/1.1":               HTTP1,
		"OPTIONS */":                       Other,
		"GET * HTTP/1.1":                   Other,
		"CONNECT a:80 HTTP/1.1":            HTTP1,
		"CONNECT [::1]:80 HTTP/1.1":        HTTP1,
		"CONNECT .":                        Other,
		strings.Repeat("M", 32):            Unknown,
		strings.Repeat("M", 32) + " /":     HTTP1,
		strings.Repeat("M", 33):            Other,
		strings.Repeat("M", 33) + " /":     Other,
		"PRI":                              Unknown,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r":   Unknown,
		preface:                            HTTP2,
		preface + "\x00\x00":               HTTP2,
		"PRI * HTTP/1.1\r\n":               Other,
		"PRI / HTTP/1.1\r\n":               Other,
		"PRIVATE / HTTP/1.1\r\n":           HTTP1,
		"\x16":                             Unknown,
		"\x16\x03\x01\x02\x00":             Unknown,
		"\x16\x03\x01\x02\x00\x01":         TLS,
		"\x16\x03\x03\x02\x00\x01\x00":     TLS,
		"\x16\x03\x01\x02\x00\x02":         Other,
		"\x16\x03\x05":                     Other,
		"\x16\x02":                         Other,
		"SSH-2.0-OpenSSH_9.9\r\n":          Other,
		"EHLO laptop.example\r\n":          Other,
		"*1\r\n$4\r\nPING\r\n":             Other, // Redis
		"SET hello 1\r\n":                  Other,
		"\x00\x00\x00\x08\x04\xd2\x16\x2f": Other, // PostgreSQL asks for TLS
		"\x10\x0c\x00\x04MQTT":             Other,
	} {
		if got := Sniff([]byte(in)); got != want {
			t.Errorf("%q is %v, want %v", in, got, want)
		}
	}
}

// FuzzSniff: a Kind once known stays, 41 bytes are enough to know it, and a
// request of net/http to a path is one for us.
func FuzzSniff(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\n", "GET https://a/ HTTP/1.1\r\n",
		preface, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI /", "EHLO a\r\n", "CONNECT [::1]:80 ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := Sniff(b)
		if want == Unknown && len(b) >= 41 {
			t.Fatal("not known")
		}
		for n := range min(len(b), 50) {
			if got := Sniff(b[:n]); got != Unknown && got != want {
				t.Fatalf("%v of %d bytes, %v of %d", got, n, want, len(b))
			}
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && strings.HasPrefix(r.RequestURI, "/") && len(r.Method) <= maxMethod && r.Method != "PRI" && want != HTTP1 {
			t.Fatalf("%s %s is %v", r.Method, r.RequestURI, want)
		}
	})
}
