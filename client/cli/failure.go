package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// failure is how a command fails whose answer is JSON.
type failure struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	localapi.Error
	ExitStatus int    `json:"exitStatus"`
	Log        string `json:"log,omitempty"`
}

// printError is the one form in which anything fails: what, and what to do.
func (env *Base) printError(e *localapi.Error) {
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
func printFailure(env *Base, cmd *cobra.Command, e *localapi.Error, log string, status int) {
	env.printError(e)
	if log != "" {
		fmt.Fprintf(env.Err, "log: %s\n", log)
	}
	if o := cmd.Flags().Lookup("output"); o != nil && slices.Contains([]string{formJSON, formYAML, jsonStream}, o.Value.String()) {
		_ = printNext(env.Out, o.Value.String(), failure{localapi.APIVersion, "Error", *e, status, log})
	}
}
