package pipeline

import (
	"context"
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

type tektonTask struct {
	Metadata struct{ Name string }
	Spec     struct {
		Params []struct {
			Name    string
			Default *string
		}
		Workspaces []struct {
			Name     string
			Optional bool
		}
		Steps []tektonStep
	}
}

type tektonStep struct {
	Name, Image, WorkingDir, Script string
	Env                             []struct{ Name, Value string }
	SecurityContext                 struct {
		RunAsNonRoot             bool
		AllowPrivilegeEscalation *bool
		Capabilities             struct{ Drop []string }
		SeccompProfile           struct{ Type string }
	}
}

type tektonRun struct {
	Spec struct {
		ServiceAccountName string
		TaskRef            struct{ Name string }
		Params             []struct{ Name, Value string }
	}
}

// ServiceAccount is the one that a TaskRun names.
func ServiceAccount(run []byte) (string, error) {
	var r tektonRun
	err := yaml.Unmarshal(run, &r)
	return r.Spec.ServiceAccountName, err
}

// Tekton runs a TaskRun of a Task. folders are those of its workspaces by name; one
// that has none is not bound.
func Tekton(ctx context.Context, w World, task, run []byte, folders map[string]string) (*Result, error) {
	var t tektonTask
	var r tektonRun
	if err := yaml.Unmarshal(task, &t); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(run, &r); err != nil {
		return nil, err
	}
	if r.Spec.TaskRef.Name != t.Metadata.Name {
		return nil, fmt.Errorf("the run is of %s, the task is %s", r.Spec.TaskRef.Name, t.Metadata.Name)
	}
	values := map[string]string{}
	for _, p := range t.Spec.Params {
		if p.Default != nil {
			values["params."+p.Name] = *p.Default
		}
	}
	declared := map[string]bool{}
	for _, p := range t.Spec.Params {
		declared[p.Name] = true
	}
	for _, p := range r.Spec.Params {
		if !declared[p.Name] {
			return nil, fmt.Errorf("no param %s", p.Name)
		}
		values["params."+p.Name] = p.Value
	}
	for _, ws := range t.Spec.Workspaces {
		path, bound := folders[ws.Name]
		if !bound && !ws.Optional {
			return nil, fmt.Errorf("no workspace %s", ws.Name)
		}
		values["workspaces."+ws.Name+".path"], values["workspaces."+ws.Name+".bound"] = path, fmt.Sprint(bound)
	}
	out := &Result{}
	for _, s := range t.Spec.Steps {
		if out.Failed {
			out.Steps = append(out.Steps, Step{Name: s.Name, Skipped: true})
			continue
		}
		done, err := w.tektonStep(ctx, s, values)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", s.Name, err)
		}
		out.Steps, out.Failed = append(out.Steps, done), done.Code != 0
	}
	return out, nil
}

func (w *World) tektonStep(ctx context.Context, s tektonStep, values map[string]string) (Step, error) {
	step := Step{Name: s.Name}
	// Pod Security restricted: what the templates promise.
	if c := s.SecurityContext; !c.RunAsNonRoot || c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL" || c.SeccompProfile.Type != "RuntimeDefault" {
		return step, fmt.Errorf("it asks for privilege: %+v", c)
	}
	env, dir := merged(w.Env), w.Dir
	for _, text := range []*string{&s.Image, &s.Script, &s.WorkingDir} {
		if err := substitute(text, values); err != nil {
			return step, err
		}
	}
	if s.Image == "" {
		return step, fmt.Errorf("no image")
	}
	if s.WorkingDir != "" {
		dir = s.WorkingDir
	}
	for _, e := range s.Env {
		if err := substitute(&e.Value, values); err != nil {
			return step, err
		}
		env[e.Name] = e.Value
	}
	file, err := w.script(s.Script)
	if err != nil {
		return step, err
	}
	step.Output, step.Code = w.Run(ctx, dir, env, file)
	return step, nil
}

var variable = regexp.MustCompile(`\$\(([a-z]+\.[A-Za-z0-9_.-]+)\)`)

// substitute replaces $(params.NAME) and its like.
func substitute(text *string, values map[string]string) error {
	var bad error
	*text = variable.ReplaceAllStringFunc(*text, func(m string) string {
		value, ok := values[variable.FindStringSubmatch(m)[1]]
		if !ok {
			bad = fmt.Errorf("%s has no value", m)
		}
		return value
	})
	return bad
}
