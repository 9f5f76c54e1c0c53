package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong says that a line exceeds MaxLine.
var ErrTooLong = errors.New("a line is longer than 1 MiB")

// Reader reads lines.
type Reader struct{ r *bufio.Reader }

// NewReader reads from r, with a buffer.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReader(r)} }

// Read reads one line into v, a pointer to one of this package's types; fields
// that are unknown are ignored. At the end between two lines it is io.EOF,
// within one io.ErrUnexpectedEOF.
func (r *Reader) Read(v any) error {
	var line []byte
	for {
		part, err := r.r.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return ErrTooLong
		}
		if err == nil && line == nil {
			line = part // until the next Read
			break
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return io.ErrUnexpectedEOF
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	if p, ok := v.(*FromPod); ok && p.Event == nil {
		if e, ok := readEvent(line); ok {
			p.Event = e
			return nil
		}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("read a line: %w", err)
	}
	return nil
}

// Write writes v as one line, in one call of w.
func Write(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	if len(line) >= MaxLine {
		return ErrTooLong
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
