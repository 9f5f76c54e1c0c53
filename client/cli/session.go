package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// sessionFlag gives a command and those below it --session; client heeds it.
func sessionFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().String("session", "", "name of the session, where several clusters are connected (default: the primary's)")
}

// sessionName is the --session of a command that has one.
func sessionName(cmd *cobra.Command) string {
	name, _ := cmd.Flags().GetString("session")
	return name
}

// connectionOf is the session of a name; without one the primary, or the only one
// where nobody is primary. It need not be ready.
func connectionOf(s localapi.Status, name string) (localapi.Connection, error) {
	var names []string
	for _, c := range s.Connections {
		if name == "" && c.Primary || name != "" && c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	switch {
	case len(names) == 0 && name == "":
		return localapi.Connection{}, notConnected(localapi.ErrNoDaemon)
	case len(names) == 0:
		return localapi.Connection{}, &localapi.Error{Code: localapi.CodeNotConnected, Message: "no session is called " + name, Hint: "podnet connect"}
	case name != "":
		return localapi.Connection{}, &localapi.Error{Code: localapi.CodeNotConnected, Message: "no session is called " + name, Hint: "connected are " + strings.Join(names, ", ") + ": podnet status"}
	case len(names) == 1:
		return s.Connections[0], nil
	}
	return localapi.Connection{}, &localapi.Error{Code: localapi.CodeUsage, Message: "which of the sessions: " + strings.Join(names, ", ") + "?",
		Hint: "--session NAME; podnet primary NAME makes one the default"}
}

// meant is the name of the session that a command line means: that of --session,
// or of the kubeconfig context that it names; "" is whichever is the default.
func meant(s localapi.Status, name string, kube localapi.Kube) (string, error) {
	context := strings.Join(kube.Flags["context"], "")
	if name != "" || context == "" || len(s.Connections) == 0 {
		return name, nil
	}
	var contexts []string
	for _, c := range s.Connections {
		if c.Context == context {
			return c.Name, nil
		}
		contexts = append(contexts, c.Context)
	}
	return "", &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("the context %s is not connected, but %s", context, strings.Join(contexts, ", ")),
		Hint: "podnet connect --context " + context + " joins that cluster, too; --session NAME takes a session that is there", Status: http.StatusConflict}
}

// inUse says whether there is a session for a command to work in. Where there is
// none, a command that names none may connect.
func inUse(s localapi.Status, name string) (bool, error) {
	if name == "" && s.State != localapi.Connected && s.State != localapi.Degraded {
		return false, nil
	}
	c, err := connectionOf(s, name)
	if err != nil {
		return false, err
	}
	if c.Since == nil && name != "" {
		return false, &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session " + name + " is not ready yet", Hint: "podnet status"}
	}
	return true, nil
}

func newPrimary(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "primary [NAME]",
		Short: "Say or change the session whose short names resolve",
		Long: `Say which session's cluster the short names and those in the cluster's zone
are of, where several clusters are connected, or make it another one's. Every
session, the primary too, has its names by its alias, whichever is primary.

  podnet connect --context lab        web.shop is lab's
  podnet connect --context blue       web.shop.svc.blue.podnet.internal is blue's
  podnet primary blue                 and now web.shop is, too`,
		Args: oneAtMost("session"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _ := client(cmd)
			if len(args) == 0 {
				s, err := ask(cmd.Context(), c)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(s.Connections, func(c localapi.Connection) bool { return c.Primary })
				if i < 0 {
					_, err := connectionOf(s, "")
					if err == nil {
						err = &localapi.Error{Code: localapi.CodeNotConnected, Message: "no session is primary", Hint: "podnet primary " + s.Connections[0].Name}
					}
					return err
				}
				fmt.Fprintln(env.Out, s.Connections[i].Name)
				return nil
			}
			if err := setOfSession(cmd.Context(), c.SetPrimary, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(env.notes(), "short names are those of %s\n", args[0])
			return nil
		},
	}
}

// oneAtMost lets one argument pass, or none.
func oneAtMost(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("one %s, not %d", what, len(args))
		}
		return nil
	}
}

// setOfSession has the daemon set something of a session, for which it has time enough.
func setOfSession(ctx context.Context, set func(context.Context, string) error, to string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := set(ctx, to)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return silentDaemon()
	case err != nil:
		return notConnected(err)
	}
	return nil
}
