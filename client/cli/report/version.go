package report

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
	"podnet.dev/internal/version"
)

// versions is the answer of version, and a promise with -o json.
type versions struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Version    string            `json:"version"`
	Daemon     *localapi.Version `json:"daemon,omitempty"`
	// Gateways are those of the sessions.
	Gateways []gatewayVersion   `json:"gateways"`
	Warnings []localapi.Warning `json:"warnings"`
}

// gatewayVersion is the version of the gateway that a session uses.
type gatewayVersion struct {
	Session string `json:"session"`
	Pod     string `json:"pod"`
	// Version is empty where the gateway is too old to say it.
	Version string `json:"version,omitempty"`
}

func newVersion(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which version this is, and which the daemon and the gateways are",
		Long: `Say which version this is, and which the daemon and the gateways of its sessions
are. It warns of those that differ from this one by more than a patch.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _ := session.Client(cmd)
			v := versionsOf(cmd.Context(), c)
			if answer.ForPrograms(output) {
				return answer.Print(env.Out, output, v)
			}
			out := words.Shown(env.Out)
			fmt.Fprintf(out, "podnet %s\n", v.Version)
			if d := v.Daemon; d != nil {
				fmt.Fprintf(out, "daemon %s, pid %d, log %s\n", d.Version, d.PID, d.Log)
			}
			for _, g := range v.Gateways {
				fmt.Fprintf(out, "gateway %s, %s of session %s\n", answer.OrDash(g.Version), g.Pod, g.Session)
			}
			warn(env, v.Warnings)
			return nil
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.FactForms, "")
	return cmd
}

// warn prints warnings.
func warn(env *caller.Env, all []localapi.Warning) {
	w := env.Paint(env.Err)
	for _, warning := range all {
		fmt.Fprintf(w, "warning: %s\n", warning.Text)
		if warning.Hint != "" {
			fmt.Fprintf(w, "hint: %s\n", env.Spoken(warning.Hint))
		}
	}
}

// versionsOf asks the daemon, if there is one, for its version and the gateways'.
func versionsOf(ctx context.Context, c *localapi.Client) versions {
	v := versions{APIVersion: localapi.APIVersion, Kind: "Versions", Version: version.Version, Gateways: []gatewayVersion{}, Warnings: []localapi.Warning{}}
	ctx, cancel := context.WithTimeout(ctx, session.CallTime)
	defer cancel()
	daemon, err := c.Version(ctx)
	if err != nil {
		return v
	}
	v.Daemon = &daemon
	if s, err := c.Status(ctx); err == nil {
		for _, connection := range s.Connections {
			if g := connection.Gateway; g.Pod != "" {
				v.Gateways = append(v.Gateways, gatewayVersion{Session: connection.Name, Pod: g.Pod, Version: g.Version})
			}
		}
	}
	v.Warnings = append(v.Warnings, skews(v)...)
	return v
}

// skews are what differs too much.
func skews(v versions) []localapi.Warning {
	var all []localapi.Warning
	if d := v.Daemon; d != nil && version.Skewed(d.Version, v.Version) {
		all = append(all, localapi.Warning{Code: "daemon-version", Severity: "medium", Text: fmt.Sprintf("the daemon is podnet %s, this is %s", d.Version, v.Version),
			Hint: "podnet disconnect --all ends it, and connect starts one of this version"})
	}
	for _, g := range v.Gateways {
		if !version.Skewed(g.Version, v.Version) {
			continue
		}
		what := "podnet " + g.Version
		if g.Version == "" {
			what = "older than those that say their version"
		}
		all = append(all, localapi.Warning{Connection: g.Session, Code: "gateway-version", Severity: "medium", Text: fmt.Sprintf("the gateway of %s is %s, this is %s", g.Session, what, v.Version),
			Hint: "podnet install brings it up to date, or take the podnet of its version"})
	}
	return all
}
