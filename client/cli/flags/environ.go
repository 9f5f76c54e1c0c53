// Package flags has the flags and arguments that several commands share, and reads the
// environment that stands behind them.
package flags

import (
	"slices"
	"strings"
)

// NoVariable annotates the flags that are words of one command line: the --path
// of steer is not that of connect.
const NoVariable = "podnet/no-variable"

// InCI says that a pipeline runs the command: nobody looks, and nobody answers.
func InCI(environ []string) bool { return slices.Contains(environ, "CI=true") }

// Variable is the value of a variable, the last of that name.
func Variable(environ []string, name string) string {
	value := ""
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}
