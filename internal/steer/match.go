package steer

import (
	"net/url"
	"slices"
	"strings"
)

// matcher is a compiled Match.
type matcher struct {
	headers, query     []condition
	method, host, path pattern
	grpc               *pattern // nil: not asked for
	rank               rank
}

// condition is a compiled Condition.
type condition struct {
	name  string // of a header in lower case
	value pattern
}

// request is a Head as a matcher needs it, taken apart once for all of them.
type request struct {
	method, host, path, query string
	grpc                      string // "package.Service/Method"; "": no gRPC
	fields                    []Field
}

func newRequest(h *Head) request {
	authority, path, query := splitTarget(h.Target)
	if authority == "" {
		authority = h.Host
	}
	r := request{method: h.Method, host: hostname(authority), path: path, query: query, fields: h.Fields}
	if h.Method == "POST" && strings.HasPrefix(path, "/") && r.hasField("content-type", "application/grpc") {
		r.grpc = path[1:]
	}
	return r
}

// hasField reports whether a field of that name, given in lower case, begins with
// prefix in any case.
func (r *request) hasField(name, prefix string) bool {
	return slices.ContainsFunc(r.fields, func(f Field) bool {
		return sameName(f.Name, name) && len(f.Value) >= len(prefix) && strings.EqualFold(f.Value[:len(prefix)], prefix)
	})
}

// sameName compares names of fields; b is ASCII. With the same length in bytes
// no other letter can fold into it.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// splitTarget takes a request's target apart (RFC 9112, section 3.2). In
// authority form it has no path.
func splitTarget(target string) (authority, path, query string) {
	target, query, _ = strings.Cut(target, "?")
	switch {
	case strings.HasPrefix(target, "/") || target == "*":
		return "", target, query
	default:
		_, rest, absolute := strings.Cut(target, "://")
		if !absolute {
			return "", "", query
		}
		authority, path, _ = strings.Cut(rest, "/")
		authority = authority[strings.LastIndexByte(authority, '@')+1:]
		return authority, "/" + path, query
	}
}

// hostname is an authority without its port, in lower case.
func hostname(authority string) string {
	host := authority
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host = authority[:i]
	}
	return lower(host)
}

func (m *matcher) match(r *request) bool {
	return m.method.match(r.method) && m.path.match(r.path) && m.host.match(r.host) &&
		(m.grpc == nil || r.grpc != "" && m.grpc.match(r.grpc)) &&
		all(m.headers, func(c *condition) bool { return c.inFields(r.fields) }) &&
		all(m.query, func(c *condition) bool { return c.inQuery(r.query) })
}

func all(conditions []condition, holds func(*condition) bool) bool {
	for i := range conditions {
		if !holds(&conditions[i]) {
			return false
		}
	}
	return true
}

func (c *condition) inFields(fields []Field) bool {
	for i := range fields {
		if sameName(fields[i].Name, c.name) && c.value.match(fields[i].Value) {
			return true
		}
	}
	return false
}

// inQuery reads a query as url.ParseQuery does.
func (c *condition) inQuery(query string) bool {
	for query != "" {
		var parameter string
		parameter, query, _ = strings.Cut(query, "&")
		if strings.Contains(parameter, ";") {
			continue
		}
		name, value, _ := strings.Cut(parameter, "=")
		if name, err := url.QueryUnescape(name); err != nil || name != c.name {
			continue
		}
		if value, err := url.QueryUnescape(value); err == nil && c.value.match(value) {
			return true
		}
	}
	return false
}
