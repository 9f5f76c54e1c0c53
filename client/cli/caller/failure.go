package caller

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/localapi"
)

// Failure is how a command fails whose answer is JSON.
type Failure struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	localapi.Error
	ExitStatus int    `json:"exitStatus"`
	Log        string `json:"log,omitempty"`
}

// PrintError is the one form in which anything fails: what, and what to do.
func (env *Env) PrintError(e *localapi.Error) {
	if e.Hint == "" {
		e.Hint = "podnet doctor and podnet logs may say more"
	}
	e.Message, e.Hint = env.Spoken(e.Message), env.Spoken(e.Hint)
	w := env.Paint(env.Err)
	if e.Phase != "" {
		fmt.Fprintf(w, "error: %s (in phase %s)\n", e.Message, e.Phase)
	} else {
		fmt.Fprintf(w, "error: %s\n", e.Message)
	}
	fmt.Fprintf(w, "hint: %s\n", e.Hint)
}

// PrintFailure is how a command ends: with an error and the log that says more, and
// where the answer is for programs with a document of it on standard output.
func PrintFailure(env *Env, cmd *cobra.Command, e *localapi.Error, log string, status int) {
	env.PrintError(e)
	if log != "" {
		fmt.Fprintf(env.Err, "log: %s\n", log)
	}
	if o := cmd.Flags().Lookup("output"); o != nil && slices.Contains([]string{answer.JSON, answer.YAML, answer.JSONStream}, o.Value.String()) {
		_ = answer.PrintNext(env.Out, o.Value.String(), Failure{localapi.APIVersion, "Error", *e, status, log})
	}
}
