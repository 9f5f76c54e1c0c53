package http1

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"podnet.dev/internal/steer"
)

// laptopDied does what has to be done when a laptop's connection has ended with
// its response not through.
func (c *conn) laptopDied(u *upstream, ex *exchange, err error) {
	if ex.seen.Out > 0 {
		if err == io.EOF && (ex.untracked || ex.response.UntilEnd) {
			c.complete(ex, true)
			return
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.end(fmt.Errorf("response of the laptop of %s: %w", ex.rule.Owner, err), true)
		return
	}

	c.send.Lock()
	defer c.send.Unlock()
	c.mu.Lock()
	ex.up = nil
	again := u.used && ex.repeatable()
	c.mu.Unlock()
	switch {
	case again: // it closed an idle connection as our request was on its way
	case ex.rule.ToApp && !ex.consumed:
		c.toApp(ex, err)
	default:
		c.refuse(ex, err)
		return
	}
	u, _ = c.start(ex) // who reads from there says what comes of an error
	c.mu.Lock()
	if c.ended && u != nil {
		closeWrite(u.conn)
	}
	c.mu.Unlock()
	c.changed()
}

// toApp makes an exchange the app's after all. send is held.
func (c *conn) toApp(ex *exchange, why error) {
	failed := ex.seen
	failed.Err, failed.Took = why, time.Since(failed.Began)
	c.see.Seen(failed)
	ex.rule, ex.seen.Rule = nil, nil
}

// refuse answers for a laptop that does not, unless it is us who end. send is held,
// and the exchange is the first of those that are pending.
func (c *conn) refuse(ex *exchange, why error) {
	if err := c.ctx.Err(); err != nil {
		c.end(err, false)
		return
	}
	c.mu.Lock()
	ex.up = nil
	isLast := !ex.sent || !ex.persistent
	c.mu.Unlock()
	b := refusal(ex.rule, ex.seen.Method, isLast)
	ex.seen.Status, ex.seen.Err = http.StatusBadGateway, why
	if _, err := c.client.Write(b); err != nil {
		c.end(err, true)
		return
	}
	ex.seen.Out += int64(len(b))
	c.complete(ex, isLast)
}

// refusal is a response that says whose laptop did not answer.
func refusal(rule *steer.Rule, method string, isLast bool) []byte {
	text := fmt.Sprintf("podnet: this request is steered to the laptop of %s, which does not answer\n", rule.Owner)
	var b strings.Builder
	b.WriteString("HTTP/1.1 502 Bad Gateway\r\n")
	fmt.Fprintf(&b, "%s: %s\r\n", steer.SteeredBy, rule.Owner)
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n", len(text))
	if isLast {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.WriteString(text)
	}
	return []byte(b.String())
}
