// Package jsonpath prints parts of a document, by templates as kubectl's -o jsonpath and
// -o custom-columns take them. It knows no cluster.
package jsonpath

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/util/jsonpath"
)

// Template is what to print of a document,
// https://kubernetes.io/docs/reference/kubectl/jsonpath/. The braces may be left out
// around a single path, as in .state.
type Template struct{ text string }

// Parse finds what is wrong with a template.
func Parse(text string) (Template, error) {
	t := Template{text}
	if !strings.Contains(text, "{") {
		t.text = "{." + strings.TrimPrefix(text, ".") + "}"
	}
	if strings.Trim(t.text, "{.} ") == "" {
		return t, fmt.Errorf("it is empty")
	}
	_, err := t.parsed()
	return t, err
}

// parsed is for one use: a range in it is used up by printing.
func (t Template) parsed() (*jsonpath.JSONPath, error) {
	p := jsonpath.New("it").AllowMissingKeys(true)
	return p, p.Parse(t.text)
}

// Print prints what the template takes of a document, without an end of line, as
// kubectl does. What the document has not is nothing, but an element of a list that
// is too short is an error.
func (t Template) Print(w io.Writer, document any) error {
	p, err := t.parsed()
	if err != nil {
		return err
	}
	it, err := plain(document)
	if err != nil {
		return err
	}
	return p.Execute(w, it)
}

// plain is a document as it is told, with whole numbers as such.
func plain(document any) (any, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var out any
	return out, json.Unmarshal(raw, &out)
}
