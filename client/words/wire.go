package words

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shownBytes is how much is shown of what was sent at a time.
const shownBytes = 4 << 10

// Wire is one direction of a connection that was inspected. The zero Wire has
// carried nothing.
type Wire struct {
	http bool // it has begun with HTTP/1
}

// Lines are what was sent at a time, of which lost bytes more are not kept: text of
// HTTP/1, and everything else as bytes. They do nothing to a terminal.
func (d *Wire) Lines(sent []byte, lost int64) []string {
	var out []string
	cut := len(sent) - min(len(sent), shownBytes)
	sent = sent[:len(sent)-cut]
	if n := ProxyHeader(sent); n > 0 {
		out = append(out, dump(sent[:n])...)
		sent = sent[n:]
	}
	if head, body, ok := cutHead(sent); ok {
		d.http = true
		for _, line := range head {
			out = append(out, safe(line))
		}
		sent = body
	}
	if text := string(sent); d.http && IsText(text) {
		for line := range strings.Lines(text) {
			out = append(out, safe(strings.TrimRight(line, "\r\n")))
		}
	} else {
		out = append(out, dump(sent)...)
	}
	if cut > 0 {
		out = append(out, fmt.Sprintf("... %s more, see podnet steer inspect -o json", Size(int64(cut))))
	}
	if lost > 0 {
		out = append(out, fmt.Sprintf("... %s more, not kept", Size(lost)))
	}
	return out
}

// FirstLine is the first line of what was sent, if HTTP/1 begins there: of a request
// its method and target, of a response its status.
func FirstLine(sent []byte) string {
	line, _, _ := bytes.Cut(sent[ProxyHeader(sent):], []byte("\n"))
	text := strings.TrimSuffix(string(line), "\r")
	switch {
	case !firstLine.MatchString(text):
		return ""
	case strings.HasPrefix(text, "HTTP/1."):
		_, text, _ = strings.Cut(text, " ")
		return safe(text)
	}
	return safe(text[:strings.LastIndexByte(text, ' ')])
}

// Line makes what somebody else has written fit for a cell or a line of a terminal: it
// neither steers that nor looks like more than one.
func Line(text string) string { return strings.ReplaceAll(safe(text), "\t", `\x09`) }

// safe is what a terminal may show.
func safe(text string) string {
	var w strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r) && r != '\t':
			_, n := utf8.DecodeRuneInString(text[i:])
			for _, c := range []byte(text[i : i+n]) {
				fmt.Fprintf(&w, `\x%02x`, c)
			}
		default:
			w.WriteRune(r)
		}
	}
	return w.String()
}

// Shown is w for text that somebody else has had a part in, a gateway, another user or a
// request: of its characters a terminal is given those that it prints, and the ends of
// lines. A name could clear the screen otherwise, or say what podnet does not.
func Shown(w io.Writer) io.Writer { return shown{w} }

type shown struct{ w io.Writer }

func (s shown) Write(b []byte) (int, error) {
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		lines[i] = safe(line)
	}
	if _, err := io.WriteString(s.w, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(b), nil
}

func dump(b []byte) []string {
	var out []string
	for line := range strings.Lines(hex.Dump(b)) {
		out = append(out, strings.TrimSuffix(line, "\n"))
	}
	return out
}

// firstLine is of a request or of a response of HTTP/1.
var firstLine = regexp.MustCompile(`^([!-~]+ [!-~]+ HTTP/1\.[01]|HTTP/1\.[01] [1-5][0-9]{2}( .*)?)$`)

// cutHead takes the head of HTTP/1 off, as lines with the empty one at its end,
// where it has one.
func cutHead(b []byte) (head []string, body []byte, ok bool) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		text := strings.TrimSuffix(string(line), "\r")
		if len(head) == 0 && !firstLine.MatchString(text) {
			return nil, b, false
		}
		head, b = append(head, text), rest
		if text == "" || !whole {
			break
		}
	}
	return head, b, len(head) > 0
}

// ProxyHeader is the length of the header of the PROXY protocol, version 2, that b
// begins with, 0 if it does not.
func ProxyHeader(b []byte) int {
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	if len(b) < 16 || string(b[:12]) != signature {
		return 0
	}
	return min(len(b), 16+int(binary.BigEndian.Uint16(b[14:16])))
}

// IsText reports whether a terminal may show a text as it is. It may have been cut
// within a character.
func IsText(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError && len(s)-i < utf8.UTFMax && !utf8.FullRuneInString(s[i:]) {
			return true
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) && r != '\t' && r != '\r' && r != '\n' {
			return false
		}
	}
	return true
}
