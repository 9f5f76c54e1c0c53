package http1

import (
	"net/netip"
	"slices"
	"strings"

	"podnet.dev/internal/steer"
)

// Request is the head of a request and what it says about what follows.
type Request struct {
	steer.Head
	Size       int  // bytes of the head, with the empty line that ends it
	Body       Body // what follows the head
	Persistent bool // the client may send another one behind it
}

// RequestParser reads one head. The zero value is ready.
type RequestParser struct {
	scan   scanner
	line   requestLine
	fields []steer.Field // room for those of the Request
}

type requestLine struct {
	method, target string
	host           string // of a target in absolute form
	minor          byte   // of the version: '0' or '1'
}

// Parse takes all that is there of a request, each time from its first byte on,
// and reports false while its head is not complete. Any error is a Doubt; it
// comes at the first byte or line that gives rise to it, whatever pieces the bytes
// come in.
func (p *RequestParser) Parse(b []byte) (Request, bool, error) {
	size, err := p.scan.scan(b)
	var head string // one copy for all of its parts
	if size > 0 || p.line.method == "" {
		head = string(b[:max(size, p.scan.first)])
	}
	if p.line.method == "" && p.scan.first > 0 {
		// An odd line came before what scan may have found.
		line, err := parseRequestLine(head[:p.scan.first-len("\r\n")])
		if err != nil {
			return Request{}, false, err
		}
		p.line = line
	}
	if err != nil || size == 0 {
		return Request{}, false, err
	}
	p.fields = slices.Grow(p.fields, p.scan.lines-1)
	req, err := p.line.request(head[p.scan.first:], p.fields)
	req.Size = size
	return req, err == nil, err
}

// again makes the parser ready for another head. The Request before it is not to be
// used any more.
func (p *RequestParser) again() {
	clear(p.fields[:cap(p.fields)]) // they hold on to their head
	*p = RequestParser{fields: p.fields}
}

// request makes a request of its first line and its other lines; room is for fields.
func (l requestLine) request(lines string, room []steer.Field) (Request, error) {
	fields, err := appendFields(room, lines)
	if err != nil {
		return Request{}, err
	}
	f, err := frame(fields, l.minor)
	if err != nil {
		return Request{}, err
	}
	if f.hosts > 1 || f.hosts == 0 && l.minor == '1' || f.host != "" && !validHost(f.host) {
		return Request{}, Doubt("its Host")
	}
	host := f.host
	if l.host != "" {
		// The target's is the one that counts, but some go by the field.
		if f.hosts > 0 && !strings.EqualFold(l.host, host) {
			return Request{}, Doubt("a Host that is not the target's")
		}
		host = l.host
	}
	return Request{
		Head: steer.Head{
			Method: l.method, Target: l.target, Host: host,
			Fields: fields, Upgrade: f.upgrade,
		},
		Body:       f.body(Body{}),
		Persistent: f.persistent,
	}, nil
}

func parseRequestLine(s string) (requestLine, error) {
	var l requestLine
	method, rest, _ := strings.Cut(s, " ")
	target, version, _ := strings.Cut(rest, " ")
	switch {
	case !isToken(method) || method == "CONNECT":
		return l, Doubt("its method")
	case version != "HTTP/1.0" && version != "HTTP/1.1":
		return l, Doubt("its version")
	}
	host, ok := parseTarget(method, target)
	if !ok {
		return l, Doubt("its target")
	}
	return requestLine{method: method, target: target, host: host, minor: version[len(version)-1]}, nil
}

// parseTarget checks a target and returns the host of one in absolute form.
func parseTarget(method, target string) (host string, ok bool) {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", false
		}
	}
	if target == "*" {
		return "", method == "OPTIONS"
	}
	path, _, _ := strings.Cut(target, "?")
	if scheme, rest, ok := strings.Cut(path, "://"); ok && isHTTP(scheme) {
		host, path, _ = strings.Cut(rest, "/")
		return host, validHost(host) && validEscapes(path)
	}
	return "", strings.HasPrefix(path, "/") && validEscapes(path)
}

func isHTTP(scheme string) bool {
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

// validEscapes reports whether each percent sign begins an escape.
func validEscapes(path string) bool {
	for {
		_, after, found := strings.Cut(path, "%")
		if !found {
			return true
		}
		if len(after) < 2 || !isHex(after[0]) || !isHex(after[1]) {
			return false
		}
		path = after[2:]
	}
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// validHost reports whether s is a name or an address, with a port or without.
// It takes less than RFC 3986 does, and all that names something.
func validHost(s string) bool {
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name, port = s[:i], s[i+1:]
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	for i := range len(name) {
		if c := name[i]; !isAlphanumeric(c) && strings.IndexByte("-._~", c) < 0 {
			return false
		}
	}
	return name != ""
}
