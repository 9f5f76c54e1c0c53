// Package pipeline runs jobs of GitHub Actions, GitLab CI and Tekton: as much of each
// as the templates in deploy/ci and the recipes in docs/ci.md use, and no more. What
// it does not know is an error, so that nothing is skipped in silence.
package pipeline

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// World is where jobs run.
type World struct {
	// Dir is the folder of the job's sources, Temp one for what it needs besides.
	// Whoever Run runs as may write to both.
	Dir, Temp string
	// Env is what the machine has set.
	Env map[string]string
	// Secrets and Vars are the project's, as a workflow of GitHub names them; a job of
	// GitLab has both in its environment.
	Secrets, Vars map[string]string
	// Run runs a command line in dir with env and nothing else of an environment, and
	// gives what it printed, and its exit status.
	Run func(ctx context.Context, dir string, env map[string]string, argv ...string) (output string, code int)
}

// Result is what became of a job.
type Result struct {
	// Failed says that a step has, and the job with it.
	Failed bool
	Steps  []Step
	// Summary is what steps wrote for people to read.
	Summary string
}

// Step is one that was run, or skipped.
type Step struct {
	Name    string
	Skipped bool
	Code    int
	Output  string
	Outputs map[string]string
}

// Output is what the steps printed.
func (r *Result) Output() string {
	var all strings.Builder
	for _, s := range r.Steps {
		if s.Skipped {
			continue
		}
		fmt.Fprintf(&all, "--- %s (exit status %d)\n%s", s.Name, s.Code, s.Output)
	}
	return all.String()
}

// script puts text into a file that everybody may read and run.
func (w *World) script(text string) (string, error) {
	f, err := os.CreateTemp(w.Temp, "script-*.sh")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o755)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return f.Name(), err
}

// empty makes an empty file that everybody may write to.
func (w *World) empty(name string) (string, error) {
	dir, err := os.MkdirTemp(w.Temp, "step-*")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o666)
}

// merged are maps put together, later ones over earlier ones.
func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

// names are the sorted keys of a map.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
