package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// jsonStream is the value of --output that prints a line of JSON for each thing that
// happens.
const jsonStream = "json-stream"

// inCI says that a pipeline runs the command: nobody looks, and nobody answers.
func inCI(environ []string) bool { return slices.Contains(environ, "CI=true") }

// interactive says that somebody looks at w.
func interactive(env *Env, w io.Writer) bool { return isTerminal(w) && !inCI(env.Environ) }

// logged is an error about which a log file may say more.
type logged struct {
	error
	file string
}

func (l *logged) Unwrap() error { return l.error }

// logOf is the log file of an error; "": it has none.
func logOf(err error) string {
	var l *logged
	if errors.As(err, &l) {
		return l.file
	}
	return ""
}

// withLog adds the daemon's log to an error, unless it is of somebody's own making.
func withLog(ctx context.Context, c *localapi.Client, err error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if v, lost := c.Version(ctx); lost == nil && v.Log != "" {
		return &logged{err, v.Log}
	}
	return err
}

// failure is how a command fails whose answer is JSON.
type failure struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	localapi.Error
	ExitStatus int    `json:"exitStatus"`
	Log        string `json:"log,omitempty"`
}

// printError is the one form in which anything fails: what, and what to do.
func (env *Env) printError(e *localapi.Error) {
	if e.Hint == "" {
		e.Hint = "podnet doctor and podnet logs may say more"
	}
	e.Message, e.Hint = env.spoken(e.Message), env.spoken(e.Hint)
	w := env.paint(env.Err)
	if e.Phase != "" {
		fmt.Fprintf(w, "error: %s (in phase %s)\n", e.Message, e.Phase)
	} else {
		fmt.Fprintf(w, "error: %s\n", e.Message)
	}
	fmt.Fprintf(w, "hint: %s\n", e.Hint)
}

// printFailure is how a command ends: with an error and the log that says more, and
// where the answer is for programs with a document of it on standard output.
func printFailure(env *Env, cmd *cobra.Command, e *localapi.Error, log string, status int) {
	env.printError(e)
	if log != "" {
		fmt.Fprintf(env.Err, "log: %s\n", log)
	}
	if o := cmd.Flags().Lookup("output"); o != nil && slices.Contains([]string{formJSON, formYAML, jsonStream}, o.Value.String()) {
		_ = printNext(env.Out, o.Value.String(), failure{localapi.APIVersion, "Error", *e, status, log})
	}
}
