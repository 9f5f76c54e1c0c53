package http1

import "strings"

// Response follows the bytes of the response to one request, informational ones
// before it included, to where they end.
type Response struct {
	Method string // of the request: it decides whether a body follows

	Status     int  // of the last head that was complete; 0: none yet
	Persistent bool // another response may follow on the connection
	Upgraded   bool // from here on the connection speaks something else
	UntilEnd   bool // the response goes on until the connection ends

	scan scanner
	head []byte // what is there of a head that is not complete
	body Body
	in   bool // the body
}

// Feed takes what comes next and returns how many of its bytes belong to the
// response, and whether the response is through: with Upgraded, it is at the
// end of its head. Any error is a Doubt, and where the response ends is not
// known.
func (r *Response) Feed(b []byte) (n int, done bool, err error) {
	for !r.in {
		used, complete, err := r.feedHead(b[n:])
		n += used
		if err != nil || !complete {
			return n, false, err
		}
		if r.Upgraded {
			return n, true, nil
		}
	}
	used, done, err := r.body.Feed(b[n:])
	return n + used, done, err
}

// feedHead takes the bytes of a head and reports whether it is complete.
func (r *Response) feedHead(b []byte) (n int, complete bool, err error) {
	head, before := b, len(r.head)
	if before > 0 {
		r.head = append(r.head, b...)
		head = r.head
	}
	size, err := r.scan.scan(head)
	if err != nil {
		return 0, false, err
	}
	if size == 0 {
		if before == 0 {
			r.head = append(r.head, b...)
		}
		return len(b), false, nil
	}
	text := string(head[:size])
	err = r.read(text[:r.scan.first-len("\r\n")], text[r.scan.first:])
	r.scan, r.head = scanner{}, nil
	return size - before, err == nil, err
}

// read takes a complete head.
func (r *Response) read(line, lines string) error {
	status, minor, ok := parseStatusLine(line)
	if !ok {
		return Doubt("its status line")
	}
	f := newFraming(minor)
	if err := eachField(lines, f.add); err != nil {
		return err
	}
	if err := f.finish(); err != nil {
		return err
	}
	r.Status, r.Persistent = status, f.persistent
	// RFC 9112, section 6.3, in its order.
	switch {
	case status == 101 || r.Method == "CONNECT" && status/100 == 2:
		r.Upgraded = true
	case status/100 == 1: // another head follows
	case r.Method == "HEAD" || status == 204 || status == 304:
		r.in = true
	default:
		r.in = true
		r.body = f.body(Body{kind: untilEnd})
		r.UntilEnd = r.body.kind == untilEnd
	}
	return nil
}

func parseStatusLine(s string) (status int, minor byte, ok bool) {
	version, rest, _ := strings.Cut(s, " ")
	code, _, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.0" && version != "HTTP/1.1" || len(code) != 3 {
		return 0, 0, false
	}
	for i := range len(code) {
		if !isDigit(code[i]) {
			return 0, 0, false
		}
		status = 10*status + int(code[i]-'0')
	}
	return status, version[len(version)-1], status >= 100
}
