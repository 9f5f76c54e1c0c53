package http1

import (
	"strconv"
	"strings"

	"podnet.dev/internal/steer"
)

// Doubt says why a message may mean one thing to us and another to a program
// that reads it. Such a message is nobody's but the app's.
type Doubt string

func (d Doubt) Error() string { return "odd HTTP/1 message: " + string(d) }

// scanner finds the end of a head in bytes that come in any pieces. It looks at
// each byte once and knows nothing of fields, but stops at bytes that no head may
// have. Lines end in CRLF; RFC 9112, section 2.2, lets a recipient take a bare LF
// for one, and that is how two recipients come to disagree.
type scanner struct {
	at    int // what is before it was looked at
	start int // of the line at at
	first int // length of the first line with its CRLF; 0: not known yet
	lines int // that are complete
}

// scan takes all that is there of a head, each time from its first byte on, and
// returns the length of the head with the empty line that ends it, 0 while that
// is not there.
func (s *scanner) scan(b []byte) (int, error) {
	for s.at < len(b) {
		switch c := b[s.at]; {
		case s.at+2 > steer.MaxHead:
			return 0, Doubt("its head is too long")
		case c == '\r':
			if s.at+1 == len(b) {
				return 0, nil
			}
			if b[s.at+1] != '\n' {
				return 0, Doubt("a bare CR")
			}
			empty := s.at == s.start
			s.at += 2
			if empty && s.lines > 0 {
				return s.at, nil
			}
			if s.lines++; empty || s.lines > 1+steer.MaxFields {
				return 0, Doubt("an empty first line, or too many fields")
			}
			if s.start = s.at; s.first == 0 {
				s.first = s.at
			}
		case c == '\n':
			return 0, Doubt("a bare LF")
		case c < ' ' && c != '\t' || c == 0x7f:
			return 0, Doubt("a control character in its head")
		default:
			s.at++
		}
	}
	return 0, nil
}

// appendFields appends the fields of a complete head without its first line.
func appendFields(fields []steer.Field, s string) ([]steer.Field, error) {
	err := eachField(s, func(f steer.Field) error {
		fields = append(fields, f)
		return nil
	})
	return fields, err
}

// eachField calls f for the fields of a complete head without its first line, up to
// the first error.
func eachField(s string, f func(steer.Field) error) error {
	for {
		end := strings.IndexByte(s, '\r') // there is no other CR, and LF follows
		if end == 0 {
			return nil
		}
		line := s[:end]
		if line[0] == ' ' || line[0] == '\t' {
			return Doubt("a folded line")
		}
		colon := strings.IndexByte(line, ':')
		if colon < 0 || !isToken(line[:colon]) {
			return Doubt("a field name that is no token")
		}
		if err := f(steer.Field{Name: line[:colon], Value: trim(line[colon+1:])}); err != nil {
			return err
		}
		s = s[end+len("\r\n"):]
	}
}

// trim cuts white space off both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// framing is what the fields of a message say about its end and its connection.
type framing struct {
	length     int64 // of Content-Length; -1: there is none
	chunked    bool
	hosts      int // Host fields
	host       string
	upgrade    bool // there is an Upgrade field
	persistent bool // another message may follow on the connection

	minor  byte // of the message's version
	closes bool // it says so
}

// newFraming is the framing of a message of HTTP/1.minor before its fields.
func newFraming(minor byte) framing {
	return framing{length: -1, persistent: minor == '1', minor: minor}
}

// frame reads the framing of a message of HTTP/1.minor.
func frame(fields []steer.Field, minor byte) (framing, error) {
	f := newFraming(minor)
	for _, field := range fields {
		if err := f.add(field); err != nil {
			return f, err
		}
	}
	return f, f.finish()
}

// add takes the next field.
func (f *framing) add(field steer.Field) error {
	name, value := field.Name, field.Value
	switch {
	case isName(name, "content-length"):
		n, ok := parseLength(value)
		if !ok || f.length >= 0 {
			return Doubt("its Content-Length")
		}
		f.length = n
	case isName(name, "transfer-encoding"):
		if value != "chunked" || f.chunked || f.minor == '0' {
			return Doubt("its Transfer-Encoding")
		}
		f.chunked = true
	case isName(name, "trailer"):
		for name := range strings.SplitSeq(strings.ToLower(value), ",") {
			switch strings.Trim(name, " \t") {
			case "content-length", "transfer-encoding", "trailer":
				return Doubt("a trailer that would frame it")
			}
		}
	case isName(name, "host"):
		f.hosts++
		f.host = value
	case isName(name, "upgrade"):
		f.upgrade = true
	case isName(name, "connection"):
		for option := range strings.SplitSeq(strings.ToLower(value), ",") {
			switch strings.Trim(option, " \t") {
			case "close":
				f.closes = true
			case "keep-alive":
				f.persistent = true
			}
		}
	}
	return nil
}

// finish takes note that there is no field more.
func (f *framing) finish() error {
	if f.chunked && f.length >= 0 {
		return Doubt("both Content-Length and Transfer-Encoding")
	}
	f.persistent = f.persistent && !f.closes
	return nil
}

// isName reports whether a token is a field's name, which has no case.
func isName(token, name string) bool {
	return len(token) == len(name) && strings.EqualFold(token, name)
}

// body is the body that the fields alone tell of; none is what there is when
// they tell of none.
func (f framing) body(none Body) Body {
	switch {
	case f.chunked:
		return Body{kind: chunked}
	case f.length >= 0:
		return Body{kind: sized, left: uint64(f.length)}
	default:
		return none
	}
}

// parseLength reads 1*DIGIT up to what 63 bits hold.
func parseLength(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool { return tokenBytes[c] }

var tokenBytes = func() (is [256]bool) {
	for c := range is {
		is[c] = isAlphanumeric(byte(c)) || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return is
}()

func isAlphanumeric(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
