package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// shownBytes is how much of each direction of an exchange is printed for people.
const shownBytes = 4 << 10

// newSteerInspect shows what the daemon keeps of a rule's connections.
func newSteerInspect(env *Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what the last connections that a rule took carried",
		Long: `Show what the last connections carried that a rule took, which was made with
--inspect: what came from the pod after >, what the program on this machine
answered after <. HTTP/1 is shown as text, everything else as bytes. The daemon
keeps them in memory only, for as long as the rule lives, and tells nobody but
its owner.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "want the name of one rule", Hint: "podnet steer list"}
			}
			if output != "" && output != "json" {
				return usage("output %q: want json", output)
			}
			c, _ := client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			all, err := c.Inspect(ctx, args[0])
			if err != nil {
				return notConnected(err)
			}
			if output == "json" {
				return printJSON(env.Out, all)
			}
			return printInspections(env.Out, all)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: all that is kept as JSON, bytes in base64")
	return cmd
}

// printInspections is for people.
func printInspections(w io.Writer, all localapi.Inspections) error {
	var b bytes.Buffer
	if len(all.Connections) == 0 {
		fmt.Fprintln(&b, "no connection yet")
	}
	for n, c := range all.Connections {
		if n > 0 {
			fmt.Fprintln(&b)
		}
		state := "open"
		if c.Over {
			state = "over"
		}
		fmt.Fprintf(&b, "connection by %s at %s, %s", c.Pod, c.Time.Local().Format(timeOfDay), state)
		if c.Forgotten > 0 {
			fmt.Fprintf(&b, ", what was before %s is forgotten", c.Exchanges[0].Time.Local().Format(timeOfDay))
		}
		fmt.Fprintln(&b)
		in, out := wire{mark: "> "}, wire{mark: "< "}
		for _, e := range c.Exchanges {
			in.print(&b, e.In, e.InMore)
			out.print(&b, e.Out, e.OutMore)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// timeOfDay is a time to the millisecond.
const timeOfDay = "15:04:05.000"

// wire is one direction of a connection.
type wire struct {
	mark string
	http bool // it has begun with HTTP/1
}

// print prints what was sent: text of HTTP/1, and everything else as bytes.
func (d *wire) print(w *bytes.Buffer, sent []byte, lost int64) {
	cut := len(sent) - min(len(sent), shownBytes)
	sent = sent[:len(sent)-cut]
	if n := proxyHeader(sent); n > 0 {
		d.bytes(w, sent[:n])
		sent = sent[n:]
	}
	if head, body, ok := cutHead(sent); ok {
		d.http = true
		for _, line := range head {
			d.line(w, line)
		}
		sent = body
	}
	if text := string(sent); d.http && isText(text) {
		for line := range strings.Lines(text) {
			d.line(w, strings.TrimRight(line, "\r\n"))
		}
	} else {
		d.bytes(w, sent)
	}
	if cut > 0 {
		d.line(w, fmt.Sprintf("... %s more, see -o json", size(int64(cut))))
	}
	if lost > 0 {
		d.line(w, fmt.Sprintf("... %s more, not kept", size(lost)))
	}
}

// line prints what is safe on a terminal.
func (d *wire) line(w *bytes.Buffer, text string) {
	w.WriteString(d.mark)
	for i, r := range text {
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r) && r != '\t':
			_, n := utf8.DecodeRuneInString(text[i:])
			for _, c := range []byte(text[i : i+n]) {
				fmt.Fprintf(w, `\x%02x`, c)
			}
		default:
			w.WriteRune(r)
		}
	}
	w.WriteByte('\n')
}

func (d *wire) bytes(w *bytes.Buffer, b []byte) {
	for line := range strings.Lines(hex.Dump(b)) {
		w.WriteString(d.mark + line)
	}
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

// proxyHeader is the length of the header of the PROXY protocol, version 2, that b
// begins with, 0 if it does not.
func proxyHeader(b []byte) int {
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	if len(b) < 16 || string(b[:12]) != signature {
		return 0
	}
	return min(len(b), 16+int(binary.BigEndian.Uint16(b[14:16])))
}

// isText reports whether a terminal may show a text as it is. It may have been cut
// within a character.
func isText(s string) bool {
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
