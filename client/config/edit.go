package config

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"podnet.dev/client/localapi"
)

// document is a file to be changed. Whatever else is in it stays, comments too.
type document struct {
	doc, root *yaml.Node
	// before is what a file had that had nothing but comments.
	before []byte
}

// open reads a file that is well formed; an empty one gets its head.
func open(name string, raw []byte) (*document, error) {
	p := parser{name}
	doc, err := p.document(raw)
	if err != nil {
		return nil, err
	}
	if doc == nil {
		root := &yaml.Node{Kind: yaml.MappingNode}
		d := &document{&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}, root, comments(raw)}
		d.put(root, "apiVersion", scalar(localapi.APIVersion))
		d.put(root, "kind", scalar(Kind))
		return d, nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, p.fail(doc.Content[0], "the file: want keys with values")
	}
	return &document{doc, doc.Content[0], nil}, nil
}

// comments are the lines of a file that are, and the empty ones between them.
func comments(raw []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(raw) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			b.Write(line)
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func (d *document) bytes() ([]byte, error) {
	var b bytes.Buffer
	b.Write(d.before)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(d.doc); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// child is the value of a key; nil: there is none.
func (*document) child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// put sets a key. A comment behind the value that was there goes with it.
func (d *document) put(n *yaml.Node, key string, v *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = v
			return
		}
	}
	n.Content = append(n.Content, scalar(key), v)
}

// drop takes a key away, and says whether it was there.
func (*document) drop(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return true
		}
	}
	return false
}

// below is the mapping of a key, made where there is none.
func (d *document) below(key string) *yaml.Node {
	n := d.child(d.root, key)
	if n == nil || n.Tag == "!!null" {
		n = &yaml.Node{Kind: yaml.MappingNode}
		d.put(d.root, key, n)
	}
	return n
}

// scalar is a text, or one of the words that YAML has for yes and no.
func scalar(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	if text == "true" || text == "false" {
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: text}
	}
	return n
}

// splitKey is the part of the file that a key is in, and its name there.
func splitKey(key string) (part, name string, err error) {
	part, name, _ = strings.Cut(key, ".")
	if (part != "defaults" && part != "tray") || name == "" {
		return "", "", &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("%q is no key", key), Status: http.StatusBadRequest,
			Hint: "defaults.FLAG is what a flag defaults to, as defaults.path; tray.notify is the tray's; profiles are for podnet profile"}
	}
	return part, name, nil
}

// set gives a key its values.
func (d *document) set(key string, values []string) error {
	part, name, err := splitKey(key)
	if err != nil {
		return err
	}
	v := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, text := range values {
		v.Content = append(v.Content, scalar(text))
	}
	if len(values) == 1 {
		v = v.Content[0]
	}
	d.put(d.below(part), name, v)
	return nil
}

// unset takes a key away.
func (d *document) unset(key string) error {
	part, name, err := splitKey(key)
	if err != nil {
		return err
	}
	if n := d.child(d.root, part); n == nil || !d.drop(n, name) {
		return &localapi.Error{Code: localapi.CodeNotFound, Message: "the user's file does not set " + key, Hint: "podnet config view says where it is set", Status: http.StatusNotFound}
	}
	return nil
}

// save puts a profile in the place of the one of its name, or behind the others.
func (d *document) save(p localapi.Profile) error {
	raw, err := sigsyaml.Marshal(p.Connect)
	if err != nil {
		return err
	}
	var connect yaml.Node
	if err := yaml.Unmarshal(raw, &connect); err != nil {
		return err
	}
	made, name := &yaml.Node{Kind: yaml.MappingNode}, &yaml.Node{}
	name.SetString(p.Name) // which may be true
	d.put(made, "name", name)
	if p.AutoConnect {
		d.put(made, "autoConnect", scalar("true"))
	}
	d.put(made, "connect", connect.Content[0])
	list := d.child(d.root, "profiles")
	if list == nil || list.Tag == "!!null" {
		list = &yaml.Node{Kind: yaml.SequenceNode}
		d.put(d.root, "profiles", list)
	}
	for i, n := range list.Content {
		if d.called(n, p.Name) {
			list.Content[i] = made
			return nil
		}
	}
	list.Content = append(list.Content, made)
	return nil
}

func (d *document) called(n *yaml.Node, name string) bool {
	v := d.child(n, "name")
	return v != nil && v.Value == name
}

// remove takes a profile away.
func (d *document) remove(name string) error {
	if list := d.child(d.root, "profiles"); list != nil {
		for i, n := range list.Content {
			if d.called(n, name) {
				list.Content = append(list.Content[:i], list.Content[i+1:]...)
				return nil
			}
		}
	}
	return &localapi.Error{Code: localapi.CodeNotFound, Message: "the user's file has no profile " + name, Hint: "podnet profile list", Status: http.StatusNotFound}
}
