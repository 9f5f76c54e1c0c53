package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// The forms in which commands print: the values of -o.
const (
	formTable = "table" // for people, as without -o
	formWide  = "wide"  // for people who want more of it
	formJSON  = "json"
	formYAML  = "yaml"
	formName  = "name" // names alone, one a line
)

// listForms are those of commands that print things with names, streamForms of those
// that print such things and then what happens to them, factForms of those that print
// facts, dataForms of those whose output is for programs alone.
var (
	listForms   = []string{formTable, formWide, formJSON, formYAML, formName}
	streamForms = []string{formTable, formJSON, formYAML, formName}
	factForms   = []string{formTable, formJSON, formYAML}
	dataForms   = []string{formYAML, formJSON}
)

// outputFlag is the -o of a command. What was given is one of forms; table is
// the same as nothing.
func outputFlag(f *pflag.FlagSet, output *string, forms []string, about string) {
	f.VarP(formFlag{output, forms}, "output", "o", choice(forms)+about)
}

type formFlag struct {
	to    *string
	forms []string
}

func (f formFlag) Type() string { return "string" }
func (f formFlag) String() string {
	if f.to == nil {
		return ""
	}
	return *f.to
}

func (f formFlag) Set(value string) error {
	if !slices.Contains(f.forms, value) {
		return errors.New("want " + choice(f.forms))
	}
	if *f.to = value; value == formTable {
		*f.to = ""
	}
	return nil
}

// choice is a list of words in a sentence.
func choice(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// forPrograms says whether a program reads what is printed.
func forPrograms(output string) bool { return output == formJSON || output == formYAML }

// printAs prints one document for programs.
func printAs(w io.Writer, output string, v any) error {
	if output != formYAML {
		return printJSON(w, v)
	}
	text, err := yaml.Marshal(v)
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// printNext prints one of several things that come one after the other: a line of
// JSON, or a document of YAML.
func printNext(w io.Writer, output string, v any) error {
	if output != formYAML {
		return json.NewEncoder(w).Encode(v)
	}
	if _, err := io.WriteString(w, "---\n"); err != nil {
		return err
	}
	return printAs(w, output, v)
}

// printNames prints what -o name asks for.
func printNames[T any](w io.Writer, all []T, name func(T) string) error {
	for _, v := range all {
		if _, err := fmt.Fprintln(w, name(v)); err != nil {
			return err
		}
	}
	return nil
}
