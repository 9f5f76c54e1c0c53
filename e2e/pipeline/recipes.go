package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Recipe is the nth block of code, from 0, in a section of docs/ci.md, of the
// repository at top.
func Recipe(top, section string, nth int) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(top, "docs/ci.md"))
	if err != nil {
		return nil, err
	}
	_, after, found := strings.Cut(string(text), "\n## "+section+"\n")
	after, _, _ = strings.Cut(after, "\n## ")
	parts := strings.Split(after, "\n```")
	if !found || len(parts) < 2*nth+3 {
		return nil, fmt.Errorf("docs/ci.md has no recipe %d in %q", nth, section)
	}
	_, block, _ := strings.Cut(parts[2*nth+1], "\n")
	return []byte(block + "\n"), nil
}

// Template is a file of deploy/ci.
func Template(top, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(top, "deploy/ci", name))
}

// Project lays out the sources of a job as docs/ci.md says: the templates are where a
// project keeps them.
func Project(top, dir string) error {
	action := filepath.Join(dir, ".github/actions/podnet")
	if err := os.MkdirAll(action, 0o755); err != nil {
		return err
	}
	for from, to := range map[string]string{
		"github/action.yml": filepath.Join(action, "action.yml"), "github/install.sh": filepath.Join(action, "install.sh"), "github/connect.sh": filepath.Join(action, "connect.sh"),
		"gitlab/podnet.gitlab-ci.yml": filepath.Join(dir, "podnet.gitlab-ci.yml"),
	} {
		text, err := Template(top, from)
		if err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
