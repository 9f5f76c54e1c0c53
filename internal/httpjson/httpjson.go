// Package httpjson is the little that podnet's own HTTP APIs share: bounded
// JSON bodies in, JSON and JSON lines out, and errors that keep their code and
// hint from one side to the other. It knows nobody's types.
package httpjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

const (
	// MaxBody is the largest request body that is read, in bytes. A connect request
	// with a whole environment is about 20 KiB.
	MaxBody = 1 << 20
	// MaxAnswer is the same of an answer. What is kept of a steered rule's connections
	// is 2.5 MiB at most, and a third more as JSON has bytes.
	MaxAnswer = 16 << 20
)

// Error is what an API answers instead of a result. Code is stable and short
// (`forbidden`), Message is one sentence without a full stop, Hint says what
// to try. Phase names the step that failed, where there are steps.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Phase   string `json:"phase,omitempty"`

	// Status is the HTTP status it travels with; not part of the body.
	Status int `json:"-"`
}

func (e *Error) Error() string { return e.Message }

// Coder and Hinter are what an error may know beside its text. FromError finds
// them anywhere in the chain.
type (
	Coder  interface{ Code() string }
	Hinter interface{ Hint() string }
)

// CodeInternal is the code of an error that names none.
const CodeInternal = "internal"

// FromError is err as it travels: code and hint from the first error in the
// chain that has one, the text of the whole chain. An Error in the chain keeps
// its fields.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	out := &Error{Code: CodeInternal, Message: err.Error(), Status: http.StatusInternalServerError}
	var known *Error
	if errors.As(err, &known) {
		*out = *known
		out.Message = err.Error()
	}
	var c Coder
	if known == nil && errors.As(err, &c) {
		out.Code = c.Code()
	}
	var h Hinter
	if out.Hint == "" && errors.As(err, &h) {
		out.Hint = h.Hint()
	}
	if out.Status == 0 {
		out.Status = http.StatusInternalServerError
	}
	return out
}

// body is the envelope of an Error, so that an answer is never mistaken for one.
type body struct {
	Error *Error `json:"error"`
}

// Read decodes the request's body into v. Unknown fields, a second value, more
// than MaxBody bytes and anything but application/json are errors: a typo must
// not become a default.
func Read(r *http.Request, v any) error {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return &Error{Code: "usage", Message: "the body must be application/json", Status: http.StatusUnsupportedMediaType}
	}
	return decode(io.LimitReader(r.Body, MaxBody+1), v)
}

func decode(r io.Reader, v any) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(raw) > MaxBody {
		return &Error{Code: "usage", Message: "the body is too large", Status: http.StatusRequestEntityTooLarge}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &Error{Code: "usage", Message: "parse body: " + err.Error(), Status: http.StatusBadRequest}
	}
	if _, err := d.Token(); err != io.EOF {
		return &Error{Code: "usage", Message: "parse body: more than one value", Status: http.StatusBadRequest}
	}
	return nil
}

// Write answers with v.
func Write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The client is gone or it is not; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// WriteError answers with err.
func WriteError(w http.ResponseWriter, err error) {
	e := FromError(err)
	Write(w, e.Status, body{e})
}

// Response decodes what a server of this package answered: v on success, an
// *Error otherwise. It closes the body. Unknown fields are ignored, so that an
// older client understands a newer server.
func Response(resp *http.Response, v any) error {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(raw) > MaxAnswer {
		return fmt.Errorf("read answer: it is longer than %d MiB", MaxAnswer>>20)
	}
	if resp.StatusCode/100 != 2 {
		return responseError(resp.StatusCode, raw)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("parse answer: %w", err)
	}
	return nil
}

func responseError(status int, raw []byte) error {
	var b body
	if json.Unmarshal(raw, &b) == nil && b.Error != nil && b.Error.Message != "" {
		b.Error.Status = status
		return b.Error
	}
	return &Error{Code: CodeInternal, Message: fmt.Sprintf("unexpected answer: %s", http.StatusText(status)), Status: status}
}

// Lines writes JSON values one a line and flushes each, as a stream of events.
type Lines struct {
	w   http.ResponseWriter
	enc *json.Encoder
}

// NewLines starts the stream.
func NewLines(w http.ResponseWriter) *Lines {
	w.Header().Set("Content-Type", "application/jsonlines")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	l := &Lines{w: w, enc: json.NewEncoder(w)}
	l.flush()
	return l
}

// Send writes one value.
func (l *Lines) Send(v any) error {
	if err := l.enc.Encode(v); err != nil {
		return err
	}
	l.flush()
	return nil
}

func (l *Lines) flush() { _ = http.NewResponseController(l.w).Flush() }

// ReadLines calls f with each value of a stream until it ends, f fails, or the
// server answered with an error instead of a stream. It closes the body.
func ReadLines[T any](resp *http.Response, f func(T) error) error {
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		raw, _ := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
		return responseError(resp.StatusCode, raw)
	}
	d := json.NewDecoder(resp.Body)
	for {
		var v T
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read event: %w", err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
}

// Local guards an API that is served on a unix socket against web pages: a
// browser that was talked into reaching it sends an Origin, a Referer or, to any
// site at all, Sec-Fetch-Site (Fetch Metadata), or a Host that is not ours.
func Local(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" || r.Header.Get("Sec-Fetch-Site") != "" || r.Host != host {
			WriteError(w, &Error{Code: "forbidden", Message: "this API is not for web pages", Status: http.StatusForbidden})
			return
		}
		next.ServeHTTP(w, r)
	})
}
