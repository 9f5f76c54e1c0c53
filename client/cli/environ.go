// Package flags has the flags and arguments that several commands share, and reads the
// environment that stands behind them.
package cli

import (
	"slices"
	"strings"
)

// noVariable annotates the flags that are words of one command line: the --path
// of steer is not that of connect.
const noVariable = "podnet/no-variable"

// inCI says that a pipeline runs the command: nobody looks, and nobody answers.
func inCI(environ []string) bool { return slices.Contains(environ, "CI=true") }

// variableOf is the value of a variable, the last of that name.
func variableOf(environ []string, name string) string {
	value := ""
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}
