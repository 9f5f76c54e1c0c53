package http2

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"podnet.dev/internal/steer"
)

// hopFields have no place in HTTP/2 (RFC 9113, section 8.2.2).
var hopFields = []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}

// readHead makes of a request's first block what is decided on. Its error is the
// doubt in it: such a request goes to the app just as it came, whose matter it is
// to refuse it. CONNECT is among them: it asks for a tunnel.
func readHead(fields []hpack.HeaderField) (steer.Head, error) {
	h := steer.Head{H2: true}
	var method, scheme, path, authority, host *string
	h.Fields = make([]steer.Field, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if !f.IsPseudo() {
			if err := checkField(f); err != nil {
				return h, err
			}
			if f.Name == "host" {
				if host != nil {
					return h, errors.New("two host fields")
				}
				host = &f.Value
			}
			h.Fields = append(h.Fields, steer.Field{Name: f.Name, Value: f.Value})
			continue
		}
		if len(h.Fields) > 0 {
			return h, fmt.Errorf("%s behind a field", f.Name)
		}
		var at **string
		switch f.Name {
		case ":method":
			at = &method
		case ":scheme":
			at = &scheme
		case ":path":
			at = &path
		case ":authority":
			at = &authority
		}
		if at == nil || *at != nil {
			return h, fmt.Errorf("%q is unknown or there twice", f.Name)
		}
		*at = &f.Value
	}
	if method == nil || scheme == nil || path == nil {
		return h, errors.New("a pseudo field is missing")
	}
	h.Method, h.Target = *method, *path
	switch {
	case authority != nil && host != nil && !strings.EqualFold(*authority, *host):
		return h, errors.New("host is not :authority")
	case authority != nil:
		h.Host = *authority
	case host != nil:
		h.Host = *host
	}
	switch {
	case !isToken(h.Method) || h.Method == "CONNECT":
		return h, fmt.Errorf("method %q", h.Method)
	case h.Target != "*" && !strings.HasPrefix(h.Target, "/"):
		return h, errors.New(":path is none")
	case !isVisible(h.Target) || !isVisible(h.Host):
		return h, errors.New(":path or :authority has odd bytes")
	}
	return h, checkLength(h.Fields)
}

func checkField(f *hpack.HeaderField) error {
	switch {
	case !isToken(f.Name) || f.Name != strings.ToLower(f.Name):
		return fmt.Errorf("field name %q", f.Name)
	case !httpguts.ValidHeaderFieldValue(f.Value) || strings.TrimSpace(f.Value) != f.Value:
		return fmt.Errorf("value of %s has odd bytes", f.Name)
	case slices.Contains(hopFields, f.Name), f.Name == "te" && f.Value != "trailers":
		return fmt.Errorf("%s has no place here", f.Name)
	}
	return nil
}

// checkLength takes at most one content-length, of digits.
func checkLength(fields []steer.Field) error {
	seen := false
	for _, f := range fields {
		if f.Name != "content-length" {
			continue
		}
		if _, err := strconv.ParseUint(f.Value, 10, 63); err != nil || seen {
			return errors.New("content-length is not one number")
		}
		seen = true
	}
	return nil
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !httpguts.IsTokenRune(r) }) < 0
}

// isVisible reports whether s is ASCII without controls and spaces.
func isVisible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// status returns a response's :status, 100 to 999; 0 if it has none that is one.
func status(fields []hpack.HeaderField) int {
	if len(fields) == 0 || fields[0].Name != ":status" || len(fields[0].Value) != 3 {
		return 0
	}
	n, err := strconv.Atoi(fields[0].Value)
	if err != nil || n < 100 {
		return 0
	}
	return n
}

// isGRPC reports whether a request expects its errors as gRPC does.
func isGRPC(fields []hpack.HeaderField) bool {
	return slices.ContainsFunc(fields, func(f hpack.HeaderField) bool {
		return f.Name == "content-type" && strings.HasPrefix(strings.ToLower(f.Value), "application/grpc")
	})
}
