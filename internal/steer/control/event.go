package control

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Events are most of what is said at a busy port, a line for each request. With
// encoding/json they took 6 us of CPU of those that a stolen request costs an agent, and 13
// of those that it costs a laptop, of 140 each: what is written here is written as that
// package does, and what is read here is exactly what is written. All else is left to it.

// AppendEvent appends a line with nothing but an event.
func AppendEvent(b []byte, e *Event) []byte {
	b = append(b, `{"event":{"rule":`...)
	b = appendText(b, e.Rule)
	b = append(b, `,"began":"`...)
	b = e.Began.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	for _, f := range []struct {
		name string
		is   bool
	}{{`,"mirror":true`, e.Mirror}, {`,"byApp":true`, e.ByApp}} {
		if f.is {
			b = append(b, f.name...)
		}
	}
	for _, f := range []struct{ name, text string }{{`,"method":`, e.Method}, {`,"target":`, e.Target}, {`,"host":`, e.Host}} {
		if f.text != "" {
			b = appendText(append(b, f.name...), f.text)
		}
	}
	if e.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(e.Status), 10)
	}
	b = strconv.AppendInt(append(b, `,"took":`...), int64(e.Took), 10)
	b = strconv.AppendInt(append(b, `,"in":`...), e.In, 10)
	b = strconv.AppendInt(append(b, `,"out":`...), e.Out, 10)
	if e.Error != "" {
		b = appendText(append(b, `,"error":`...), e.Error)
	}
	return append(b, "}}\n"...)
}

// plain reports whether a text stands in JSON as it is.
func plain(c byte) bool {
	return ' ' <= c && c < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain(s[i]) {
			quoted, _ := json.Marshal(s) // there is no text that it does not take
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// readEvent reads a line that AppendEvent has written, where its texts are plain. It
// reports false for any other line.
func readEvent(line []byte) (*Event, bool) {
	p := eventReader{rest: string(bytes.TrimSuffix(line, []byte("\n"))), ok: true}
	e := new(Event)
	p.want(`{"event":{"rule":`)
	e.Rule = p.text()
	p.want(`,"began":`)
	err := e.Began.UnmarshalText([]byte(p.text()))
	p.ok = p.ok && err == nil
	e.Mirror = p.has(`,"mirror":true`)
	e.ByApp = p.has(`,"byApp":true`)
	if p.has(`,"method":`) {
		e.Method = p.text()
	}
	if p.has(`,"target":`) {
		e.Target = p.text()
	}
	if p.has(`,"host":`) {
		e.Host = p.text()
	}
	if p.has(`,"status":`) {
		e.Status = int(p.number())
	}
	p.want(`,"took":`)
	e.Took = time.Duration(p.number())
	p.want(`,"in":`)
	e.In = p.number()
	p.want(`,"out":`)
	e.Out = p.number()
	if p.has(`,"error":`) {
		e.Error = p.text()
	}
	p.want(`}}`)
	return e, p.ok && p.rest == ""
}

// eventReader takes a line apart, from its beginning; what is not as expected makes it
// not ok.
type eventReader struct {
	rest string
	ok   bool
}

func (p *eventReader) has(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.rest = rest
	return ok
}

func (p *eventReader) want(s string) { p.ok = p.has(s) && p.ok }

func (p *eventReader) text() string {
	p.want(`"`)
	for i := range len(p.rest) {
		if c := p.rest[i]; !plain(c) {
			s := p.rest[:i]
			p.rest = p.rest[i+1:]
			p.ok = p.ok && c == '"'
			return s
		}
	}
	p.ok = false
	return ""
}

// number takes a number of 63 bits, written in the one way that there is.
func (p *eventReader) number() int64 {
	n := 0
	for n < len(p.rest) && ('0' <= p.rest[n] && p.rest[n] <= '9' || n == 0 && p.rest[n] == '-') {
		n++
	}
	v, err := strconv.ParseInt(p.rest[:n], 10, 64)
	p.ok = p.ok && err == nil && strconv.FormatInt(v, 10) == p.rest[:n]
	p.rest = p.rest[n:]
	return v
}
