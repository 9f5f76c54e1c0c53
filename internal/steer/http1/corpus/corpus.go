// Package corpus is HTTP/1 as it is spoken, and as it should not be: what tests of
// steering send to programs and have programs answer. It knows of steer only how
// long a head may be.
package corpus

import (
	"strings"

	"podnet.dev/internal/steer"
)

// Plain is a request like most.
const Plain = "GET /a?b=c HTTP/1.1\r\nHost: shop\r\n\r\n"

// ChunkedHead is the head of a request with a chunked body.
const ChunkedHead = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

// Message is a request, or a part of one.
type Message struct {
	Name string
	Text string
	Rest string // what may come behind it, and is not of it
}

// Sane are requests that mean the same to everybody.
var Sane = []Message{
	{"plain", Plain, "GET"},
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

// Odd are requests that may mean one thing to one reader and another to the next.
var Odd = []Message{
	{Name: "CL and TE", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{Name: "TE and CL", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
	{Name: "two lengths", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
	{Name: "one length twice", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
	{Name: "list of lengths", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc"},
	{Name: "signed length", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"},
	{Name: "negative length", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n"},
	{Name: "hex length", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc"},
	{Name: "empty length", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"},
	{Name: "huge length", Text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"},
	{Name: "other coding", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
	{Name: "coding in capitals", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"},
	{Name: "coding twice", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{Name: "identity", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
	{Name: "coding in 1.0", Text: "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{Name: "vertical tab", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\vchunked\r\n\r\n"},
	{Name: "bare LF", Text: "GET / HTTP/1.1\nHost: a\n\n"},
	{Name: "bare LF at the end", Text: "GET / HTTP/1.1\r\nHost: a\r\n\n"},
	{Name: "bare CR", Text: "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"},
	{Name: "CR CR LF", Text: "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"},
	{Name: "fold", Text: "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"},
	{Name: "fold first", Text: "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
	{Name: "NUL", Text: "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"},
	{Name: "DEL", Text: "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"},
	{Name: "space before the colon", Text: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc"},
	{Name: "empty name", Text: "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
	{Name: "no colon", Text: "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"},
	{Name: "name that is no token", Text: "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n"},
	{Name: "name with high bytes", Text: "GET / HTTP/1.1\r\nHost: a\r\nCont\xc3\xa9: b\r\n\r\n"},
	{Name: "head too long", Text: padded(steer.MaxHead + 1)},
	{Name: "too many fields", Text: "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", steer.MaxFields) + "\r\n"},
	{Name: "1.2", Text: "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
	{Name: "0.9", Text: "GET /\r\n"},
	{Name: "2.0", Text: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{Name: "lower case version", Text: "GET / http/1.1\r\nHost: a\r\n\r\n"},
	{Name: "two spaces", Text: "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "space at the end", Text: "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"},
	{Name: "tab", Text: "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "empty line first", Text: "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "no host", Text: "GET / HTTP/1.1\r\n\r\n"},
	{Name: "two hosts", Text: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
	{Name: "host with a path", Text: "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{Name: "host with a user", Text: "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
	{Name: "other host in the target", Text: "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"},
	{Name: "no path", Text: "GET a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "asterisk", Text: "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "target with high bytes", Text: "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "fragment", Text: "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "bad escape", Text: "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"},
	{Name: "CONNECT", Text: "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"},
	{Name: "trailer that frames", Text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: a, Content-Length\r\n\r\n0\r\n\r\n"},
}

// OddBodies are such, behind ChunkedHead.
var OddBodies = []Message{
	{Name: "no digits", Text: "\r\n"},
	{Name: "sign", Text: "+1\r\na\r\n0\r\n\r\n"},
	{Name: "prefix", Text: "0x1\r\na\r\n0\r\n\r\n"},
	{Name: "space", Text: "1 \r\na\r\n0\r\n\r\n"},
	{Name: "17 digits", Text: "00000000000000001\r\na\r\n0\r\n\r\n"},
	{Name: "too large", Text: "8000000000000000\r\n"},
	{Name: "bare LF", Text: "1\na\r\n0\r\n\r\n"},
	{Name: "bare LF behind the data", Text: "1\r\na\n0\r\n\r\n"},
	{Name: "data too long", Text: "1\r\nab\r\n0\r\n\r\n"},
	{Name: "long extension", Text: "1;" + strings.Repeat("a", maxExtension+1) + "\r\na\r\n0\r\n\r\n"},
	{Name: "LF in an extension", Text: "1;a\nb\r\na\r\n0\r\n\r\n"},
	{Name: "bare LF at the end", Text: "0\r\n\n"},
	{Name: "trailer without colon", Text: "0\r\nA\r\n\r\n"},
	{Name: "fold in a trailer", Text: "0\r\nA: b\r\n c\r\n\r\n"},
	{Name: "too many trailers", Text: "0\r\n" + strings.Repeat("A: b\r\n", steer.MaxFields+1) + "\r\n"},
	{Name: "trailers too long", Text: "0\r\nA: " + strings.Repeat("b", steer.MaxHead) + "\r\n\r\n"},
}

// maxExtension is the longest extension of a chunk that is not odd, in bytes.
const maxExtension = 256

// padded is a request whose head has n bytes.
func padded(n int) string {
	const begin, end = "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n"
	return begin + strings.Repeat("x", n-len(begin)-len(end)) + end
}

// Response is one to a request with a method.
type Response struct {
	Name, Method string
	Text         string
	Rest         string // what may come behind it, and is not of it
	Status       int    // of the final head
}

// Responses are such that mean the same to everybody.
var Responses = []Response{
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

// DoubtfulResponses are no HTTP/1, or may be read in two ways.
var DoubtfulResponses = []string{
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
}

// OddAnswers are what else programs say, or do not.
var OddAnswers = []string{
	"", "H", "\r\n", "220 mail\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
	"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ntoo short",
	"HTTP/1.0 200 OK\r\n\r\nuntil the end",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", steer.MaxHead) + "\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\n\r\n\x00\x01\n",
}
