package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/fakemachine"
)

// kubectls are flags of kubectl's that the documentation shows, and fakeKube has not.
var kubectls = []string{"kubeconfig", "cluster", "server", "token", "token-file", "proxy-url", "client-certificate", "as-uid", "as-user-extra"}

// TestDocsKnowTheFlags: the documentation shows no flag that podnet has not, in its
// command lines and in the tables below the name of a command, and leaves none out.
func TestDocsKnowTheFlags(t *testing.T) {
	root := cli.Tree(cli.Env{Env: caller.Env{Kube: fakemachine.NewKube()}})
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var (
		heading = regexp.MustCompile(`^(#+) (.+)$`)
		row     = regexp.MustCompile("^\\| (`-[^|]+) \\|")
		call    = regexp.MustCompile("(?:^|[\\s`(/])podnet((?: +[^\\s`|;#)\"]+)+)")
		flag    = regexp.MustCompile(`(?:^|[\s\[` + "`" + `])(--?[a-zA-Z][a-z0-9-]*)`)
	)
	lacks := func(cmd *cobra.Command, text string) (missing []string) {
		text, _, _ = strings.Cut(text, " -- ")
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			if !hasFlag(cmd, m[1]) {
				missing = append(missing, m[1])
			}
		}
		return missing
	}
	all, calls, rows := "", 0, 0
	for _, file := range append(files, "../../README.md", "../../SECURITY.md") {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(raw)
		below, level := (*cobra.Command)(nil), 0 // of the heading that was last
		for i, line := range strings.Split(string(raw), "\n") {
			if m := heading.FindStringSubmatch(line); m != nil && (below == nil || len(m[1]) <= level) {
				level, below = len(m[1]), find(root, strings.Fields(m[2]))
			}
			if m := row.FindStringSubmatch(line); m != nil && below != nil {
				rows++
				if missing := lacks(below, m[1]); missing != nil {
					t.Errorf("%s:%d: %s has no %v", file, i+1, below.CommandPath(), missing)
				}
			}
			for _, m := range call.FindAllStringSubmatch(line, -1) {
				words := strings.Fields(m[1])
				cmd := root
				for len(words) > 0 {
					next := find(cmd, words[:1])
					if next == nil {
						break
					}
					cmd, words = next, words[1:]
				}
				if cmd == root && !strings.HasPrefix(words[0], "-") {
					continue // somebody else's argument
				}
				calls++
				if missing := lacks(cmd, strings.Join(words, " ")); missing != nil {
					t.Errorf("%s:%d: %s has no %v", file, i+1, cmd.CommandPath(), missing)
				}
			}
		}
	}
	if calls < 100 || rows < 60 {
		t.Errorf("found %d calls and %d rows of flags: are the patterns right?", calls, rows)
	}
	each(root, func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			written := "--" + f.Name
			if f.Shorthand != "" {
				written = "(?:" + written + "|-" + f.Shorthand + ")"
			}
			if !f.Hidden && f.Name != "help" && !regexp.MustCompile(`[\s\[`+"`"+`]`+written+`\b`).MatchString(all) {
				t.Errorf("nothing is said of %s --%s", cmd.CommandPath(), f.Name)
			}
		})
	})
}

// find is the command of these words below another; nil: there is none.
func find(cmd *cobra.Command, words []string) *cobra.Command {
	for _, w := range words {
		at := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == w })
		if at < 0 {
			return nil
		}
		cmd = cmd.Commands()[at]
	}
	return cmd
}

// hasFlag is whether a command, or one below it, has a flag as it is written.
func hasFlag(cmd *cobra.Command, written string) (has bool) {
	name, long := strings.CutPrefix(written, "--")
	if long && (slices.Contains(kubectls, name) || name == "help") {
		return true
	}
	each(cmd, func(c *cobra.Command) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.InheritedFlags()} {
			if long && set.Lookup(name) != nil || !long && set.ShorthandLookup(written[1:2]) != nil {
				has = true
			}
		}
	})
	return has
}

// each goes through the commands that are shown.
func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			each(c, do)
		}
	}
}
