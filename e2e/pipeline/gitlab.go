package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

type gitlabJob struct {
	Extends      string
	Image        string
	Variables    map[string]string
	BeforeScript []string `json:"before_script"`
	Script       []string
	AfterScript  []string `json:"after_script"`
}

// GitLab runs a job of a .gitlab-ci.yml, with the files of the project that it includes.
func GitLab(ctx context.Context, w World, config []byte, job string) (*Result, error) {
	jobs := map[string]gitlabJob{}
	if err := gitlabRead(w.Dir, config, jobs); err != nil {
		return nil, err
	}
	j, ok := jobs[job]
	if !ok {
		return nil, fmt.Errorf("no job %s, but %q", job, names(jobs))
	}
	if j.Extends != "" {
		base, ok := jobs[j.Extends]
		if !ok {
			return nil, fmt.Errorf("%s extends %s, which is not there", job, j.Extends)
		}
		j = extend(base, j)
	}
	env := merged(w.Env, map[string]string{"CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "4711", "CI_PROJECT_DIR": w.Dir}, j.Variables, w.Vars, w.Secrets)
	r := &Result{}
	run := func(name string, lines []string) error {
		if len(lines) == 0 {
			return nil
		}
		file, err := w.script("set -eo pipefail\n" + strings.Join(lines, "\n") + "\n")
		if err != nil {
			return err
		}
		s := Step{Name: name}
		s.Output, s.Code = w.Run(ctx, w.Dir, env, "bash", file)
		r.Steps = append(r.Steps, s)
		return nil
	}
	if err := run("script", append(append([]string{}, j.BeforeScript...), j.Script...)); err != nil {
		return nil, err
	}
	r.Failed = len(r.Steps) == 0 || r.Steps[0].Code != 0
	return r, run("after_script", j.AfterScript) // in a shell of its own, whatever came of the script
}

// gitlabRead adds the jobs of a file and of those that it includes.
func gitlabRead(dir string, config []byte, jobs map[string]gitlabJob) error {
	var raw map[string]any
	if err := yaml.Unmarshal(config, &raw); err != nil {
		return err
	}
	for name, value := range raw {
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		if name == "include" {
			var all []struct{ Local string }
			if err := yaml.UnmarshalStrict(text, &all); err != nil {
				return fmt.Errorf("include: %w", err)
			}
			for _, one := range all {
				included, err := os.ReadFile(filepath.Join(dir, one.Local))
				if err == nil {
					err = gitlabRead(dir, included, jobs)
				}
				if err != nil {
					return fmt.Errorf("include %s: %w", one.Local, err)
				}
			}
			continue
		}
		var j gitlabJob
		if err := yaml.UnmarshalStrict(text, &j); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		jobs[name] = j
	}
	return nil
}

// extend is a job over the one that it extends: variables come together, scripts
// replace each other.
func extend(base, j gitlabJob) gitlabJob {
	j.Variables = merged(base.Variables, j.Variables)
	for _, s := range []struct{ have, or *[]string }{{&j.BeforeScript, &base.BeforeScript}, {&j.Script, &base.Script}, {&j.AfterScript, &base.AfterScript}} {
		if *s.have == nil {
			*s.have = *s.or
		}
	}
	return j
}
