package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

type githubStep struct {
	ID, Name, Uses, Run, Shell, If string
	With, Env                      map[string]string
}

type githubJob struct {
	Env   map[string]string
	Steps []githubStep
}

type githubAction struct {
	Name, Description string
	Inputs            map[string]struct {
		Description, Default string
		Required             bool
	}
	Outputs map[string]struct{ Description, Value string }
	Runs    struct {
		Using string
		Steps []githubStep
	}
}

// github is a job that runs.
type github struct {
	world  *World
	result *Result
	env    map[string]string // of the job, and what steps have added
	path   []string          // what steps have put before PATH
}

// GitHub runs a job of a workflow.
func GitHub(ctx context.Context, w World, workflow []byte, job string) (*Result, error) {
	var flow struct {
		Env  map[string]string
		Jobs map[string]githubJob
	}
	if err := yaml.Unmarshal(workflow, &flow); err != nil {
		return nil, err
	}
	j, ok := flow.Jobs[job]
	if !ok {
		return nil, fmt.Errorf("no job %s, but %q", job, names(flow.Jobs))
	}
	g := &github{world: &w, result: &Result{}, env: merged(w.Env, map[string]string{
		"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": w.Dir, "RUNNER_TEMP": w.Temp,
	})}
	base := known{"secrets": w.Secrets, "vars": w.Vars, "runner": {"temp": w.Temp}}
	for _, env := range []map[string]string{flow.Env, j.Env} {
		filled, err := base.fillAll(env)
		if err != nil {
			return nil, err
		}
		g.env = merged(g.env, filled)
	}
	return g.result, g.steps(ctx, j.Steps, base, false, nil)
}

// steps runs steps one after the other; those of a composite action have a context of
// their own.
func (g *github) steps(ctx context.Context, steps []githubStep, base known, composite bool, env map[string]string) error {
	for i, s := range steps {
		name := s.Name
		if name == "" {
			name = strings.SplitN(s.Uses+strings.TrimSpace(s.Run), "\n", 2)[0]
		}
		run, err := g.due(s.If)
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if !run {
			g.result.Steps = append(g.result.Steps, Step{Name: name, Skipped: true})
			continue
		}
		outputs := map[string]string{}
		switch {
		case strings.HasPrefix(s.Uses, "actions/checkout@"): // the sources are there
		case strings.HasPrefix(s.Uses, "./"):
			outputs, err = g.action(ctx, s, base)
		case s.Uses != "":
			err = fmt.Errorf("uses %s, which is not here", s.Uses)
		default:
			outputs, err = g.run(ctx, name, s, base, composite, env)
		}
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, name, err)
		}
		if s.ID != "" {
			for k, v := range outputs {
				base.set("steps."+s.ID+".outputs", k, v)
			}
		}
	}
	return nil
}

// due says whether a step's turn has come.
func (g *github) due(condition string) (bool, error) {
	switch strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(condition, "${{"), "}}")) {
	case "", "success()":
		return !g.result.Failed, nil
	case "always()":
		return true, nil
	case "failure()":
		return g.result.Failed, nil
	}
	return false, fmt.Errorf("if: %s: want always(), success() or failure()", condition)
}

// action runs the composite action that a step uses.
func (g *github) action(ctx context.Context, s githubStep, base known) (map[string]string, error) {
	dir := filepath.Join(g.world.Dir, s.Uses)
	text, err := os.ReadFile(filepath.Join(dir, "action.yml"))
	if err != nil {
		return nil, err
	}
	var a githubAction
	if err := yaml.UnmarshalStrict(text, &a); err != nil {
		return nil, err
	}
	if a.Runs.Using != "composite" {
		return nil, fmt.Errorf("it runs using %s", a.Runs.Using)
	}
	with, err := base.fillAll(s.With)
	if err != nil {
		return nil, err
	}
	inputs := map[string]string{}
	for name, in := range a.Inputs {
		value, given := with[name]
		if !given && in.Required {
			return nil, fmt.Errorf("the input %s is required", name)
		}
		if !given {
			value = in.Default
		}
		inputs[name] = value
	}
	for name := range with {
		if _, ok := a.Inputs[name]; !ok {
			return nil, fmt.Errorf("no input %s, but %q", name, names(a.Inputs))
		}
	}
	env, err := base.fillAll(s.Env)
	if err != nil {
		return nil, err
	}
	// A composite action sees its inputs, and neither secrets nor variables.
	inner := known{"inputs": inputs, "runner": base["runner"], "github": {"action_path": dir}}
	if err := g.steps(ctx, a.Runs.Steps, inner, true, merged(env, map[string]string{"GITHUB_ACTION_PATH": dir})); err != nil {
		return nil, err
	}
	outputs := map[string]string{}
	for name, o := range a.Outputs {
		if outputs[name], err = inner.fill(o.Value); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// run runs a script.
func (g *github) run(ctx context.Context, name string, s githubStep, base known, composite bool, env map[string]string) (map[string]string, error) {
	base["env"] = merged(g.env, env)
	own, err := base.fillAll(s.Env)
	if err != nil {
		return nil, err
	}
	text, err := base.fill(s.Run)
	if err != nil {
		return nil, err
	}
	file, err := g.world.script(text)
	if err != nil {
		return nil, err
	}
	shell := map[string][]string{"": {"bash", "-e", file}, "bash": {"bash", "--noprofile", "--norc", "-eo", "pipefail", file}, "sh": {"sh", "-e", file}}[s.Shell]
	if shell == nil || composite && s.Shell == "" {
		return nil, fmt.Errorf("shell %q: want bash or sh, and in an action one of them", s.Shell)
	}
	all := merged(g.env, env, own)
	files := map[string]string{}
	for _, f := range []string{"GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"} {
		if files[f], err = g.world.empty(f); err != nil {
			return nil, err
		}
		all[f] = files[f]
	}
	all["PATH"] = strings.Join(append(append([]string{}, g.path...), all["PATH"]), ":")
	step := Step{Name: name}
	step.Output, step.Code = g.world.Run(ctx, g.world.Dir, all, shell...)
	told := map[string]string{}
	for f, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		told[f] = string(b)
	}
	added, err := assignments(told["GITHUB_ENV"])
	if err != nil {
		return nil, err
	}
	g.env = merged(g.env, added)
	for _, dir := range strings.Fields(told["GITHUB_PATH"]) {
		g.path = append([]string{dir}, g.path...)
	}
	g.result.Summary += told["GITHUB_STEP_SUMMARY"]
	if step.Outputs, err = assignments(told["GITHUB_OUTPUT"]); err != nil {
		return nil, err
	}
	g.result.Failed = g.result.Failed || step.Code != 0
	g.result.Steps = append(g.result.Steps, step)
	return step.Outputs, nil
}

// assignments reads NAME=value lines, and NAME<<END with lines up to END.
func assignments(text string) (map[string]string, error) {
	out := map[string]string{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		name, value, ok := strings.Cut(line, "=")
		before, end, long := strings.Cut(line, "<<")
		switch {
		case line == "":
		case long && (!ok || len(before) < len(name)):
			var block []string
			for i++; i < len(lines) && lines[i] != end; i++ {
				block = append(block, lines[i])
			}
			if i == len(lines) {
				return nil, fmt.Errorf("no end %s of %s", end, before)
			}
			out[before] = strings.Join(block, "\n")
		case ok:
			out[name] = value
		default:
			return nil, fmt.Errorf("%q is no NAME=value", line)
		}
	}
	return out, nil
}

// known is what expressions may name, as secrets.TOKEN or steps.ID.outputs.NAME.
type known map[string]map[string]string

func (k known) set(where, name, value string) {
	if k[where] == nil {
		k[where] = map[string]string{}
	}
	k[where][name] = value
}

var expression = regexp.MustCompile(`\$\{\{\s*([^}]*?)\s*\}\}`)

// fill replaces each expression by what it names; of what is known, what is not set is
// empty, as on GitHub.
func (k known) fill(text string) (string, error) {
	var bad error
	out := expression.ReplaceAllStringFunc(text, func(m string) string {
		path := expression.FindStringSubmatch(m)[1]
		at := strings.LastIndex(path, ".")
		if at < 0 || k[path[:at]] == nil && !strings.HasPrefix(path, "steps.") {
			bad = fmt.Errorf("%s: nothing of that name here", m)
			return ""
		}
		return k[path[:at]][path[at+1:]]
	})
	return out, bad
}

func (k known) fillAll(all map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for name, text := range all {
		value, err := k.fill(text)
		if err != nil {
			return nil, err
		}
		out[name] = value
	}
	return out, nil
}
