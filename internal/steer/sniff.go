package steer

import "strings"

// Kind is what a connection speaks.
type Kind int

const (
	// Unknown needs more bytes.
	Unknown Kind = iota
	// HTTP1 begins like a request of HTTP/1.
	HTTP1
	// HTTP2 begins with the preface of HTTP/2, sent with prior knowledge.
	HTTP2
	// TLS begins with a ClientHello.
	TLS
	// Other is none of them.
	Other
)

func (k Kind) String() string {
	return [...]string{"unknown", "http1", "http2", "tls", "other"}[k]
}

// maxMethod is the size in bytes of the longest method that Sniff takes for one;
// the longest registered one has 17 (UPDATEREDIRECTREF).
const maxMethod = 32

// sniffBytes is the most that Sniff needs: the longest method, a space and
// https://.
const sniffBytes = maxMethod + len(" https://")

// preface is what a client of HTTP/2 sends first (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Sniff looks at the first bytes of a connection. Once it knows what they are,
// more of them do not change its mind; of 41 bytes it always knows. Like a method
// and the beginning of a target look also some requests of other protocols: only
// a whole head proves that it is HTTP.
func Sniff(b []byte) Kind {
	if len(b) > 0 && b[0] == 0x16 {
		return sniffTLS(b)
	}
	s := string(b[:min(len(b), sniffBytes)])
	method, target, spaced := strings.Cut(s, " ")
	switch {
	case s == "":
		return Unknown
	case len(method) > maxMethod || !isToken(method):
		return Other
	case !spaced:
		return Unknown
	case method == "PRI": // means nothing else (RFC 9113, section 11.6)
		return expect(s, preface, HTTP2)
	default:
		return sniffTarget(method, target)
	}
}

// sniffTLS wants the handshake record of a ClientHello, of any version from SSL 3
// to TLS 1.3 (RFC 8446, sections 4 and 5.1).
func sniffTLS(b []byte) Kind {
	switch {
	case len(b) > 1 && b[1] != 3, len(b) > 2 && b[2] > 4, len(b) > 5 && b[5] != 1:
		return Other
	case len(b) < 6:
		return Unknown
	default:
		return TLS
	}
}

// sniffTarget wants one of the four forms of a target (RFC 9112, section 3.2).
func sniffTarget(method, target string) Kind {
	switch {
	case target == "":
		return Unknown
	case target[0] == '/':
		return HTTP1
	case method == "OPTIONS" && target[0] == '*':
		return expect(target, "* ", HTTP1)
	case method == "CONNECT" && (target[0] == '[' || isAlphanumeric(target[0])):
		return HTTP1
	}
	target = lower(target)
	if kind := expect(target, "http://", HTTP1); kind != Other {
		return kind
	}
	return expect(target, "https://", HTTP1)
}

// expect is kind when s begins with want, and Unknown when it still may.
func expect(s, want string, kind Kind) Kind {
	switch {
	case strings.HasPrefix(s, want):
		return kind
	case strings.HasPrefix(want, s):
		return Unknown
	default:
		return Other
	}
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2), as methods and
// names of fields are.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
