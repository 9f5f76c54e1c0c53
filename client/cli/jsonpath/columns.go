package jsonpath

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// none stands in a cell that a document has nothing for, as with kubectl.
const none = "<none>"

// Columns print parts of documents as a table, as kubectl's -o custom-columns. Its
// documents may come one after the other; it is for one goroutine.
type Columns struct {
	headers []string
	cells   []Template
	widths  []int // of what was printed so far; nil: nothing was
}

// ParseColumns reads HEADER:PATH,HEADER:PATH as kubectl does, where a PATH is a template
// as Parse takes it, without a comma.
func ParseColumns(text string) (*Columns, error) {
	c := &Columns{}
	for _, one := range strings.Split(text, ",") {
		header, path, ok := strings.Cut(one, ":")
		if !ok {
			return nil, fmt.Errorf("%q has no colon", one)
		}
		cell, err := Parse(path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", one, err)
		}
		c.headers, c.cells = append(c.headers, header), append(c.cells, cell)
	}
	return c, nil
}

// Print prints a line for each thing in the document's list of that name, or where name
// is empty one for the document; before the first of all a line of headers. With an error
// nothing is printed.
func (c *Columns) Print(w io.Writer, document any, list string) error {
	things, err := thingsOf(document, list)
	if err != nil {
		return err
	}
	var lines [][]string
	if c.widths == nil {
		lines = append(lines, c.headers)
	}
	for _, thing := range things {
		line := make([]string, len(c.cells))
		for i, cell := range c.cells {
			if line[i], err = cell.take(thing); err != nil {
				return fmt.Errorf("%s: %w", c.headers[i], err)
			}
		}
		lines = append(lines, line)
	}
	_, err = io.WriteString(w, c.align(lines))
	return err
}

// align pads the cells, no less than those of lines before.
func (c *Columns) align(lines [][]string) string {
	if c.widths == nil {
		c.widths = make([]int, len(c.headers))
	}
	for _, line := range lines {
		for i, cell := range line {
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		last := len(line) - 1
		for i, cell := range line[:last] {
			fmt.Fprintf(&b, "%-*s   ", c.widths[i], cell)
		}
		b.WriteString(line[last] + "\n")
	}
	return b.String()
}

func thingsOf(document any, list string) ([]any, error) {
	it, err := plain(document)
	if err != nil || list == "" {
		return []any{it}, err
	}
	fields, _ := it.(map[string]any)
	things, ok := fields[list].([]any)
	if !ok {
		return nil, errors.New("it has no list of " + list)
	}
	return things, nil
}

// take is what the template takes of a plain document, on one line: several things are
// parted by commas, lists and objects are JSON.
func (t Template) take(document any) (string, error) {
	p, err := t.parsed()
	if err != nil {
		return "", err
	}
	found, err := p.FindResults(document)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, some := range found {
		for i, v := range some {
			if v.Kind() == reflect.Interface && v.IsNil() {
				continue // null
			}
			if i > 0 {
				b.WriteByte(',')
			}
			if err := p.PrintResults(&b, []reflect.Value{v}); err != nil {
				return "", err
			}
		}
	}
	return cmp.Or(oneLine(b.String()), none), nil
}

// oneLine is text without what moves a terminal's cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
