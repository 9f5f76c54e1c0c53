// Package answer prints what a command was asked for, in the form that -o names.
package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"podnet.dev/client/cli/jsonpath"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// The forms in which commands print: the values of -o.
const (
	Table = "table" // for people, as without -o
	Wide  = "wide"  // for people who want more of it
	JSON  = "json"
	YAML  = "yaml"
	Name  = "name" // names alone, one a line
	// Path stands for every template after pathPrefix: a part of the document.
	Path = pathPrefix + "TEMPLATE"
	// Columns stands for every choice of columns after columnsPrefix: a table of
	// parts of the document.
	Columns = columnsPrefix + "NAME:PATH"
)

// JSONStream is the form of a line of JSON for each thing that happens.
const JSONStream = "json-stream"

const (
	pathPrefix    = "jsonpath="
	columnsPrefix = "custom-columns="
)

// ListForms are those of commands that print things with names, StreamForms of those
// that print such things and then what happens to them, FactForms of those that print
// facts, DataForms of those whose output is for programs alone.
var (
	ListForms   = []string{Table, Wide, JSON, YAML, Path, Columns, Name}
	StreamForms = []string{Table, JSON, YAML, Name}
	FactForms   = []string{Table, JSON, YAML, Path, Columns}
	DataForms   = []string{YAML, JSON}
)

// Flag is the -o of a command. What was given is one of forms; table is
// the same as nothing.
func Flag(f *pflag.FlagSet, output *string, forms []string, about string) {
	f.VarP(formFlag{output, forms}, "output", "o", words.Choice(forms)+about)
}

type formFlag struct {
	to    *string
	forms []string
}

// FormsOf are the forms that a flag knows, if it is a Flag.
func FormsOf(f *pflag.Flag) []string {
	form, _ := f.Value.(formFlag)
	return form.forms
}

func (f formFlag) Type() string { return "string" }
func (f formFlag) String() string {
	if f.to == nil {
		return ""
	}
	return *f.to
}

func (f formFlag) Set(value string) error {
	template, isPath := strings.CutPrefix(value, pathPrefix)
	columns, isTable := strings.CutPrefix(value, columnsPrefix)
	switch {
	case isPath && slices.Contains(f.forms, Path):
		if _, err := jsonpath.Parse(template); err != nil {
			return fmt.Errorf("the template after %s is none: %w, want one as {.state}", pathPrefix, err)
		}
	case isTable && slices.Contains(f.forms, Columns):
		if _, err := jsonpath.ParseColumns(columns); err != nil {
			return fmt.Errorf("the columns after %s are none: %w, want them as NAME:.name,PATH:.path.kind", columnsPrefix, err)
		}
	case !slices.Contains(f.forms, value):
		return errors.New("want " + words.Choice(f.forms))
	}
	if *f.to = value; value == Table {
		*f.to = ""
	}
	return nil
}

// ForPrograms says whether a program reads what is printed.
func ForPrograms(output string) bool {
	return output == JSON || output == YAML || strings.HasPrefix(output, pathPrefix) || strings.HasPrefix(output, columnsPrefix)
}

// Print prints one document for programs.
func Print(w io.Writer, output string, v any) error {
	if template, ok := strings.CutPrefix(output, pathPrefix); ok {
		return printPart(w, template, v)
	}
	if strings.HasPrefix(output, columnsPrefix) {
		return Printer(w, output)(v)
	}
	if output != YAML {
		return printJSON(w, v)
	}
	text, err := yaml.Marshal(v)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// printPart prints what a template takes of a document.
func printPart(w io.Writer, template string, v any) error {
	t, err := jsonpath.Parse(template)
	if err == nil {
		err = t.Print(w, v)
	}
	if err != nil {
		return absent(template, err)
	}
	return nil
}

// absent says that a part of an answer is not to be had.
func absent(part string, err error) error {
	return &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("the answer has no %s: %v", part, err), Hint: "-o json shows what it has"}
}

// Document is one that says by itself which list has the rows of its table.
type Document interface{ Rows() string }

// rowsOf is the name of the list whose things are the rows of a document's table; "": it
// is a row itself.
func rowsOf(document any) string {
	switch document.(type) {
	case localapi.Status, localapi.Inspections:
		return "connections"
	case localapi.SteerList:
		return "rules"
	case localapi.ExposeList:
		return "exposures"
	case localapi.ExportList:
		return "exports"
	case localapi.ProfileList:
		return "profiles"
	case localapi.Findings:
		return "findings"
	case localapi.DNSAnswer:
		return "answers"
	}
	if d, ok := document.(Document); ok {
		return d.Rows()
	}
	return ""
}

// Printer prints things that come one after the other, as PrintNext does, or as rows of
// one table.
func Printer(w io.Writer, output string) func(v any) error {
	text, ok := strings.CutPrefix(output, columnsPrefix)
	if !ok {
		return func(v any) error { return PrintNext(w, output, v) }
	}
	columns, bad := jsonpath.ParseColumns(text)
	return func(v any) error {
		err := bad
		if err == nil {
			err = columns.Print(w, v, rowsOf(v))
		}
		if err != nil {
			return absent(text, err)
		}
		return nil
	}
}

// PrintNext prints one of several things that come one after the other: a line of
// JSON, a document of YAML, or a part of one and the end of its line.
func PrintNext(w io.Writer, output string, v any) error {
	if strings.HasPrefix(output, pathPrefix) {
		if err := Print(w, output, v); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w)
		return err
	}
	if output != YAML {
		return json.NewEncoder(w).Encode(v)
	}
	if _, err := io.WriteString(w, "---\n"); err != nil {
		return err
	}
	return Print(w, output, v)
}

// Names prints what -o name asks for.
func Names[T any](w io.Writer, all []T, name func(T) string) error {
	for _, v := range all {
		if _, err := fmt.Fprintln(w, name(v)); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// OrDash is a cell of a table.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
