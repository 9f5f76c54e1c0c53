package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/flags"
)

// pluginName is what kubectl calls: podnet is its plugin then.
const pluginName = "kubectl-podnet"

// spokenAs is how texts name podnet's commands when it was called by a name. As
// kubectl's plugin that is "kubectl podnet", also in the usage of every command.
func spokenAs(name string, root *cobra.Command) func(string) string {
	if strings.TrimSuffix(name, ".exe") != pluginName {
		return func(text string) string { return text }
	}
	commands := []string{"--help"}
	for _, c := range root.Commands() {
		commands = append(commands, c.Name())
	}
	named := regexp.MustCompile(`\bpodnet (` + strings.Join(commands, "|") + `)\b`)
	spoken := func(text string) string { return named.ReplaceAllString(text, "kubectl podnet $1") }
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl podnet"}
	flags.Walk(root, func(c *cobra.Command) { c.Long = spoken(c.Long) })
	return spoken
}
