package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"podnet.dev/client/localapi"
)

// scope is whose a file is.
type scope int

const (
	system  scope = iota // the machine's administrator's
	user                 // the user's own
	project              // of whoever wrote the folder that the user stands in
)

// projectFlags are those that a project may set. It comes with other people's code:
// it may say what to connect to, but not where credentials go or which program gives
// them.
var projectFlags = []string{"addresses", "all-namespaces", "also-domain", "also-route", "context", "gateway-namespace", "lease", "namespace", "never-route", "path", "reconnect", "wait"}

// file is one file as it is written.
type file struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Defaults   map[string]value `json:"defaults"`
	Profiles   []profile        `json:"profiles"`
	Tray       tray             `json:"tray"`

	name string
}

type value struct {
	Values []string
	Line   int
}

type profile struct {
	localapi.Profile
	Line int `json:"-"`
}

type tray struct {
	Notify *bool `json:"notify"`
	Line   int   `json:"-"`
}

// Check finds what is wrong with a default, of which there is one value unless the
// flag may be repeated.
type Check func(flag string, values []string) error

// maxSize is the size in bytes above which a file is no configuration.
const maxSize = 1 << 20

// parse reads a file strictly: what nobody would heed is an error.
func parse(name string, raw []byte, whose scope, check Check) (*file, error) {
	p := parser{name}
	if len(raw) > maxSize {
		return nil, &Error{Place{name, 1}, fmt.Sprintf("larger than %d bytes", maxSize)}
	}
	doc, err := p.document(raw)
	out := &file{name: name}
	if err != nil || doc == nil {
		return out, err
	}
	root := doc.Content[0]
	if err := p.decode(root, reflect.ValueOf(out).Elem(), ""); err != nil {
		return nil, err
	}
	if out.APIVersion != localapi.APIVersion || out.Kind != Kind {
		return nil, p.fail(root, "want apiVersion: %s and kind: %s, not %q and %q", localapi.APIVersion, Kind, out.APIVersion, out.Kind)
	}
	if whose == project && (len(out.Profiles) > 0 || out.Tray.Notify != nil) {
		return nil, p.fail(root, "the file of a project has defaults and nothing else")
	}
	for _, flag := range slices.Sorted(maps.Keys(out.Defaults)) {
		v := out.Defaults[flag]
		if whose == project && !slices.Contains(projectFlags, flag) {
			return nil, &Error{Place{name, v.Line}, fmt.Sprintf("the file of a project may not set %s: it comes with other people's code; it may set %s", flag, strings.Join(projectFlags, ", "))}
		}
		if check == nil {
			continue
		}
		if err := check(flag, v.Values); err != nil {
			return nil, &Error{Place{name, v.Line}, "defaults." + flag + ": " + err.Error()}
		}
	}
	seen := map[string]int{}
	for _, q := range out.Profiles {
		at := Place{name, q.Line}
		if err := q.Check(); err != nil {
			return nil, &Error{at, err.Error()}
		}
		if before := seen[q.Name]; before != 0 {
			return nil, &Error{at, fmt.Sprintf("the profile %s is there already, in line %d", q.Name, before)}
		}
		seen[q.Name] = q.Line
	}
	return out, nil
}

type parser struct{ file string }

func (p parser) fail(n *yaml.Node, format string, a ...any) error {
	return &Error{Place{p.file, max(n.Line, 1)}, fmt.Sprintf(format, a...)}
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// document is the one that raw has; nil: there is nothing in it.
func (p parser) document(raw []byte) (*yaml.Node, error) {
	if !utf8.Valid(raw) {
		return nil, &Error{Place{p.file, 1}, "no text in UTF-8"}
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if err == nil {
		if err = d.Decode(&more); err == nil {
			return nil, p.fail(&more, "more than one document")
		}
	}
	if !errors.Is(err, io.EOF) {
		at := Place{p.file, 1}
		text := err.Error()
		if m := yamlError.FindStringSubmatch(text); m != nil {
			text = m[2]
			if n, err := strconv.Atoi(m[1]); err == nil {
				at.Line = n
			}
		}
		return nil, &Error{at, text}
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return &doc, nil
}

// decode reads n, which stands at a path of keys, into to.
func (p parser) decode(n *yaml.Node, to reflect.Value, at string) error {
	if n.Kind == yaml.AliasNode {
		return p.fail(n, "%s: anchors are not read here", at)
	}
	if v, ok := to.Addr().Interface().(*value); ok {
		return p.value(n, v, at)
	}
	switch to.Kind() {
	case reflect.Map, reflect.Slice, reflect.Struct:
		if n.Tag == "!!null" { // a part whose lines are all commented out
			return nil
		}
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return p.decode(n, to.Elem(), at)
	case reflect.Struct:
		if line := to.FieldByName("Line"); line.IsValid() {
			line.SetInt(int64(n.Line))
		}
		return p.mapping(n, to, at)
	case reflect.Map:
		to.Set(reflect.MakeMap(to.Type()))
		return p.pairs(n, at, func(key string, _, v *yaml.Node) error {
			element := reflect.New(to.Type().Elem()).Elem()
			if err := p.decode(v, element, join(at, key)); err != nil {
				return err
			}
			to.SetMapIndex(reflect.ValueOf(key), element)
			return nil
		})
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return p.fail(n, "%s: want a list", at)
		}
		for _, v := range n.Content {
			if v.Tag == "!!null" {
				return p.fail(v, "%s: there is nothing in this line of the list", at)
			}
			element := reflect.New(to.Type().Elem()).Elem()
			if err := p.decode(v, element, at); err != nil {
				return err
			}
			to.Set(reflect.Append(to, element))
		}
		return nil
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			return p.fail(n, "%s: want text, in quotes if it looks like anything else", at)
		}
		to.SetString(n.Value)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || err != nil {
			return p.fail(n, "%s: want true or false", at)
		}
		to.SetBool(b)
		return nil
	case reflect.Int32:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
			return p.fail(n, "%s: want a number", at)
		}
		to.SetInt(i)
		return nil
	}
	panic("config: no way to read a " + to.Type().String())
}

// value reads one default: a scalar of any kind, or a list of them.
func (p parser) value(n *yaml.Node, v *value, at string) error {
	v.Line = n.Line
	all := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		all = n.Content
	}
	for _, n := range all {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return p.fail(n, "%s: want a value, or a list of them", at)
		}
		v.Values = append(v.Values, n.Value)
	}
	if len(v.Values) == 0 {
		return p.fail(n, "%s: there is nothing in the list", at)
	}
	return nil
}

// mapping reads keys into the fields of a struct.
func (p parser) mapping(n *yaml.Node, to reflect.Value, at string) error {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(to.Type()) {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" && key != "-" {
			fields[key] = f.Index
		}
	}
	return p.pairs(n, at, func(key string, k, v *yaml.Node) error {
		index, ok := fields[key]
		if !ok {
			return p.fail(k, "%s: no such key; there are %s", join(at, key), strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		return p.decode(v, to.FieldByIndex(index), join(at, key))
	})
}

// pairs goes through a mapping whose keys are text.
func (p parser) pairs(n *yaml.Node, at string, each func(key string, k, v *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		if at == "" {
			at = "the file"
		}
		return p.fail(n, "%s: want keys with values", at)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode || k.Tag != "!!str":
			return p.fail(k, "%s: want text for a key", join(at, k.Value))
		case seen[k.Value] != 0:
			return p.fail(k, "%s is there already, in line %d", join(at, k.Value), seen[k.Value])
		}
		seen[k.Value] = k.Line
		if err := each(k.Value, k, v); err != nil {
			return err
		}
	}
	return nil
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}
