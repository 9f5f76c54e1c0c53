package cli

import (
	"context"
	"encoding/json"
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
func printError(w io.Writer, e *localapi.Error) {
	if e.Hint == "" {
		e.Hint = "podnet doctor and the daemon's log, which podnet version names, may say more"
	}
	if e.Phase != "" {
		fmt.Fprintf(w, "error: %s (in phase %s)\n", e.Message, e.Phase)
	} else {
		fmt.Fprintf(w, "error: %s\n", e.Message)
	}
	fmt.Fprintf(w, "hint: %s\n", e.Hint)
}

// printFailure is how a command ends: with an error and the log that says more, and
// where JSON was asked for with a document of it on standard output.
func printFailure(env *Env, cmd *cobra.Command, e *localapi.Error, log string, status int) {
	printError(env.Err, e)
	if log != "" {
		fmt.Fprintf(env.Err, "log: %s\n", log)
	}
	if answersJSON(cmd) {
		_ = json.NewEncoder(env.Out).Encode(failure{localapi.APIVersion, "Error", *e, status, log})
	}
}

// answersJSON says that a command was asked for JSON.
func answersJSON(cmd *cobra.Command) bool {
	o := cmd.Flags().Lookup("output")
	return o != nil && (o.Value.String() == "json" || o.Value.String() == jsonStream)
}

// talk tells the progress of connecting in the way that output asks for.
func talk(env *Env, output string) func(localapi.Event) {
	if output != jsonStream {
		return progress(env.Err, output == "json" && !interactive(env, env.Err))
	}
	lines, over := json.NewEncoder(env.Out), false
	return func(e localapi.Event) {
		if !over {
			_ = lines.Encode(e)
		}
		over = over || e.Type == localapi.EventReady // whoever waited for that may have hung up
	}
}
