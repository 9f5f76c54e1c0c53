package daemon

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"podnet.dev/client/localapi"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml")

// call is what docs/openapi.yaml says of a call beside its path.
type call struct {
	says string
	// query are the names of its parameters, each with what it is.
	query   [][2]string
	in, out any
	// lines says that out comes any number of times, one a line.
	lines bool
}

var (
	session   = [2]string{"session", "name of the session that it is about; the primary's without"}
	everybody = [][2]string{session, {"all", "1: everybody's, as the cluster has them"}, {"namespace", "with all: of this namespace only"}}
	stopAll   = [][2]string{session, {"all", "1: every one; without it a name is needed"}}
)

// calls are those of the local API.
var calls = map[string]call{
	"GET /v1/version":                {says: "What runs", out: localapi.Version{}},
	"GET /v1/status":                 {says: "Everything there is to know", out: localapi.Status{}},
	"GET /v1/events":                 {says: "What happens to the sessions, until the caller hangs up", query: [][2]string{{"since", "the seq of an event or a status: only what came after it"}}, out: localapi.Event{}, lines: true},
	"POST /v1/connect":               {says: "Join a cluster; ends with the event ready or error, or of a session that is held with that", in: localapi.ConnectRequest{}, out: localapi.Event{}, lines: true},
	"POST /v1/disconnect":            {says: "End a session", query: [][2]string{{"session", "its name; where there is one it need not be said"}, {"all", "1: every session"}, {"held", "1: only where nobody else has it"}}, out: localapi.DisconnectResult{}},
	"POST /v1/primary":               {says: "Make a session the one whose short names resolve", in: localapi.PrimaryRequest{}, out: struct{}{}},
	"POST /v1/doctor":                {says: "Examine this machine, the cluster and the way between them", in: localapi.DoctorRequest{}, out: localapi.Finding{}, lines: true},
	"POST /v1/contexts":              {says: "The contexts of a kubeconfig; no cluster is asked", in: localapi.ContextsRequest{}, out: localapi.ContextList{}},
	"GET /v1/namespaces":             {says: "The namespaces of a session's cluster that the user may list, else those of the session", query: [][2]string{session}, out: localapi.NamespaceList{}},
	"GET /v1/services":               {says: "The Services of a namespace", query: [][2]string{session, {"namespace", "the one whose names need no suffix without"}}, out: localapi.ServiceList{}},
	"GET /v1/profiles":               {says: "The profiles of the configuration", out: localapi.ProfileList{}},
	"PUT /v1/profiles/{name}":        {says: "Write a profile into the user's configuration", in: localapi.Profile{}, out: struct{}{}},
	"DELETE /v1/profiles/{name}":     {says: "Take a profile out of the user's configuration", out: struct{}{}},
	"GET /v1/dns":                    {says: "Answer for a name, and say from where", query: [][2]string{session, {"name", "the name, or an address"}, {"type", "the type of record: A without, or PTR of an address"}}, out: localapi.DNSAnswer{}},
	"GET /v1/dns/queries":            {says: "The names that this machine's programs have asked for lately", query: [][2]string{session, {"follow", "1: and those that come"}}, out: localapi.DNSQuery{}, lines: true},
	"POST /v1/probe":                 {says: "Try a session once, from this machine to the cluster", query: [][2]string{session}, out: localapi.Probe{}},
	"POST /v1/addresses":             {says: "Let programs use a virtual address that no name has given them", query: [][2]string{session}, in: localapi.AddressRequest{}, out: struct{}{}},
	"POST /v1/namespace":             {says: "Make short names those of another namespace of the session", query: [][2]string{session}, in: localapi.NamespaceRequest{}, out: struct{}{}},
	"POST /v1/steer":                 {says: "Steer a target's requests to this machine", query: [][2]string{session}, in: localapi.SteerRequest{}, out: localapi.SteerEvent{}, lines: true},
	"GET /v1/steer":                  {says: "List the rules", query: everybody, out: localapi.SteerList{}},
	"DELETE /v1/steer":               {says: "End every rule of this machine", query: stopAll, out: localapi.SteerStopped{}},
	"DELETE /v1/steer/{name}":        {says: "End a rule of this machine", query: [][2]string{session}, out: localapi.SteerStopped{}},
	"GET /v1/steer/{name}/requests":  {says: "The last requests that a rule took", query: [][2]string{session, {"follow", "1: and those that come"}}, out: localapi.SteeredRequest{}, lines: true},
	"GET /v1/steer/{name}/inspected": {says: "What the last connections of a rule carried", query: [][2]string{session}, out: localapi.Inspections{}},
	"POST /v1/steer/revoke":          {says: "Delete somebody's rule", query: [][2]string{session}, in: localapi.RevokeRequest{}, out: localapi.SteerStopped{}},
	"POST /v1/steer/{name}/replay":   {says: "Send a request that a rule took to this machine's port once more", query: [][2]string{session}, in: localapi.ReplayRequest{}, out: localapi.Inspection{}},
	"POST /v1/as":                    {says: "Send from a pod until the caller hangs up", query: [][2]string{session}, in: localapi.AsRequest{}, out: localapi.SteerEvent{}, lines: true},
	"POST /v1/expose":                {says: "Give a port of this machine a name in the cluster", query: [][2]string{session}, in: localapi.ExposeRequest{}, out: localapi.ExposeEvent{}, lines: true},
	"GET /v1/expose":                 {says: "List the exposures", query: everybody, out: localapi.ExposeList{}},
	"DELETE /v1/expose":              {says: "End every exposure of this machine", query: stopAll, out: localapi.ExposeStopped{}},
	"DELETE /v1/expose/{name}":       {says: "End an exposure", query: [][2]string{session, {"namespace", "where it is; whichever it is in without"}}, out: localapi.ExposeStopped{}},
	"POST /v1/ui":                    {says: "The way to the dashboard, which is served from then on", in: localapi.UIRequest{}, out: localapi.UI{}},
	"POST /v1/export":                {says: "Let a device without podnet in", in: localapi.ExportRequest{}, out: localapi.Exported{}},
	"POST /v1/export/list":           {says: "List such devices", in: localapi.ExportListRequest{}, out: localapi.ExportList{}},
	"POST /v1/export/revoke":         {says: "Let such devices in no longer", in: localapi.ExportRevokeRequest{}, out: localapi.ExportsRevoked{}},
}

// patterns hears what a daemon answers.
type patterns []string

func (p *patterns) HandleFunc(pattern string, _ func(http.ResponseWriter, *http.Request)) {
	*p = append(*p, pattern)
}

// TestOpenAPI: every call that is answered is described, and nothing else, by the
// types that are sent.
func TestOpenAPI(t *testing.T) {
	var answered patterns
	new(daemon).register(&answered)
	for _, p := range answered {
		if calls[p].says == "" {
			t.Errorf("%s is answered, and there is no word about it", p)
		}
	}
	for p := range calls {
		if !slices.Contains(answered, p) {
			t.Errorf("%s is described, and nobody answers it", p)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	raw, err := yaml.Marshal(describe(t))
	if err != nil {
		t.Fatal(err)
	}
	raw = append([]byte("# Made from the calls of the daemon and the types of client/localapi by\n# go test ./client/daemon -run OpenAPI -update\n"), raw...)
	name := filepath.Join("..", "..", "docs", "openapi.yaml")
	if *update {
		if err := os.WriteFile(name, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(have, raw) {
		t.Errorf("%s is not what the daemon does (%v): go test ./client/daemon -run OpenAPI -update", name, err)
	}
	defined := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^    (\w+):$`).FindAllStringSubmatch(string(raw), -1) {
		defined[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`schemas/(\w+)`).FindAllStringSubmatch(string(raw), -1) {
		if !defined[m[1]] {
			t.Errorf("there is no schema %s", m[1])
		}
	}
}

type object = map[string]any

// describe makes the document.
func describe(t *testing.T) object {
	d := &describer{words: wordsOf(t, "../localapi", "../../internal/httpjson"), schemas: object{}, asked: map[string]bool{}}
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for p := range calls {
			if !yield(p) {
				return
			}
		}
	}) {
		if in := calls[p].in; in != nil {
			d.asking = true
			d.schema(reflect.TypeOf(in))
			d.asking = false
		}
	}
	d.schemas = object{} // now that it is known what may be left out
	paths := object{}
	for p, c := range calls {
		method, path, _ := strings.Cut(p, " ")
		op := object{"summary": c.says, "operationId": operation(method, path)}
		var parameters []any
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
			parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		for _, q := range c.query {
			parameters = append(parameters, object{"name": q[0], "in": "query", "description": q[1], "schema": object{"type": "string"}})
		}
		if parameters != nil {
			op["parameters"] = parameters
		}
		if c.in != nil {
			op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(c.in))}}}
		}
		kind, what := "application/json", "done"
		if c.lines {
			kind, what = "application/jsonlines", "values of this form, one a line, as they come"
		}
		op["responses"] = object{
			"200":     object{"description": what, "content": object{kind: object{"schema": d.schema(reflect.TypeOf(c.out))}}},
			"default": object{"description": "refused or failed", "content": object{"application/json": object{"schema": object{"type": "object", "properties": object{"error": d.schema(reflect.TypeFor[localapi.Error]())}, "required": []string{"error"}}}}},
		}
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(method)] = op
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "podnet local API", "version": localapi.APIVersion,
			"description": "The API of a user's daemon, HTTP/1.1 on a unix socket of mode 0600 that only its owner and root can use. " +
				"The Host is " + localapi.Host + "; a request with an Origin, a Referer or Sec-Fetch headers is refused. " +
				"Fields may be added; an unknown field in a request is an error. " +
				"For example: curl --unix-socket $XDG_RUNTIME_DIR/podnet/daemon.sock http://" + localapi.Host + "/v1/status"},
		"servers":    []any{object{"url": "http://" + localapi.Host}},
		"paths":      paths,
		"components": object{"schemas": d.schemas},
	}
}

// operation is a name for a call: getSteerNameRequests.
func operation(method, path string) string {
	name := strings.ToLower(method)
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(path, "/v1"), func(r rune) bool { return strings.ContainsRune("/{}", r) }) {
		name += strings.ToUpper(part[:1]) + part[1:]
	}
	return name
}

// describer turns types into schemas.
type describer struct {
	words   words
	schemas object
	// asked are the types that requests are made of, whose fields may be left out.
	asked  map[string]bool
	asking bool
}

func (d *describer) schema(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Slice:
		if t == reflect.TypeFor[json.RawMessage]() {
			return object{}
		}
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.String:
		s := object{"type": "string"}
		if all := d.words.values[t.Name()]; t.Name() != "string" && all != nil {
			s["enum"] = all
		}
		return s
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int32, reflect.Uint16, reflect.Uint8, reflect.Uint32:
		return object{"type": "integer", "format": "int32"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Struct:
		switch {
		case t == reflect.TypeFor[time.Time]():
			return object{"type": "string", "format": "date-time"}
		case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
			return object{"type": "string"}
		}
		return d.object(t)
	}
	panic("no schema for " + t.String())
}

func (d *describer) object(t reflect.Type) object {
	name := t.Name()
	if name == "" {
		return object{"type": "object"}
	}
	ref := object{"$ref": "#/components/schemas/" + name}
	if d.schemas[name] != nil {
		return ref
	}
	s := object{"type": "object"}
	d.schemas[name] = s
	if d.asking {
		d.asked[name] = true
	}
	if text := d.words.types[name]; text != "" {
		s["description"] = text
	}
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || key == "-" {
			continue
		}
		p := d.schema(f.Type)
		if text := d.words.fields[ownerOf(t, f)+"."+f.Name]; text != "" {
			p["description"] = text
		}
		properties[key] = p
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, key)
		}
	}
	s["properties"] = properties
	if len(required) > 0 && !d.asked[name] {
		s["required"] = required
	}
	return ref
}

// ownerOf is the type in which a field is declared.
func ownerOf(t reflect.Type, f reflect.StructField) string {
	for _, i := range f.Index[:len(f.Index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	return t.Name()
}

// words are the comments of types and of their fields, and the constants of types.
type words struct {
	types, fields map[string]string
	values        map[string][]string
}

func wordsOf(t *testing.T, dirs ...string) words {
	w := words{map[string]string{}, map[string]string{}, map[string][]string{}}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range f.Decls {
				if g, ok := decl.(*ast.GenDecl); ok {
					w.note(g)
				}
			}
		}
	}
	return w
}

func (w words) note(g *ast.GenDecl) {
	text := func(groups ...*ast.CommentGroup) string {
		for _, c := range groups {
			if c != nil {
				return strings.Join(strings.Fields(c.Text()), " ")
			}
		}
		return ""
	}
	for _, spec := range g.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			w.types[s.Name.Name] = text(s.Doc, g.Doc)
			if st, ok := s.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, n := range f.Names {
						w.fields[s.Name.Name+"."+n.Name] = text(f.Doc, f.Comment)
					}
				}
			}
		case *ast.ValueSpec:
			kind, ok := s.Type.(*ast.Ident)
			if !ok || kind.Name == "string" {
				continue
			}
			for _, v := range s.Values {
				if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if value, err := strconv.Unquote(lit.Value); err == nil {
						w.values[kind.Name] = append(w.values[kind.Name], value)
					}
				}
			}
		}
	}
}

// TestOpenAPIIsSpoken tries the description on a daemon: what it says is required is
// there.
func TestOpenAPIIsSpoken(t *testing.T) {
	raw, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	_, socket, _ := start(t, &fakeHost{}, nil)
	for path, kind := range map[string]string{"/v1/version": "Version", "/v1/status": "Status", "/v1/profiles": "ProfileList"} {
		var got map[string]any
		if err := json.Unmarshal([]byte(get(t, socket, path)), &got); err != nil {
			t.Fatal(err)
		}
		s := doc.Components.Schemas[kind]
		for _, key := range s.Required {
			if _, ok := got[key]; !ok {
				t.Errorf("%s has no %s", path, key)
			}
		}
		for key := range got {
			if s.Properties[key] == nil {
				t.Errorf("%s has %s, which is described nowhere", path, key)
			}
		}
		if len(s.Required) == 0 {
			t.Errorf("%s: nothing is required", kind)
		}
	}
}

// get asks as curl would.
func get(t *testing.T, socket, path string) string {
	t.Helper()
	resp, body := ask(t, socket, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, localapi.Host))
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	return body
}
