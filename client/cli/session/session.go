// Package session finds the daemon and the session that a command line means, and starts
// them where there are none.
package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
)

// Flag gives a command and those below it --session; Client heeds it.
func Flag(cmd *cobra.Command) {
	cmd.PersistentFlags().String("session", "", "name of the session, where several clusters are connected (default: the primary's)")
}

// NameOf is the --session of a command that has one.
func NameOf(cmd *cobra.Command) string {
	name, _ := cmd.Flags().GetString("session")
	return name
}

// Of is the session of a name; without one the primary, or the only one
// where nobody is primary. It need not be ready.
func Of(s localapi.Status, name string) (localapi.Connection, error) {
	var names []string
	for _, c := range s.Connections {
		if name == "" && c.Primary || name != "" && c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	switch {
	case len(names) == 0 && name == "":
		return localapi.Connection{}, NotConnected(localapi.ErrNoDaemon)
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

// Meant is the name of the session that a command line means: that of --session,
// or of the kubeconfig context that it names; "" is whichever is the default.
func Meant(s localapi.Status, name string, kube localapi.Kube) (string, error) {
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

// InUse says whether there is a session for a command to work in. Where there is
// none, a command that names none may connect.
func InUse(s localapi.Status, name string) (bool, error) {
	if name == "" && s.State != localapi.Connected && s.State != localapi.Degraded {
		return false, nil
	}
	c, err := Of(s, name)
	if err != nil {
		return false, err
	}
	if c.Since == nil && name != "" {
		return false, &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session " + name + " is not ready yet", Hint: "podnet status"}
	}
	return true, nil
}

// Set has the daemon set something of a session, for which it has time enough.
func Set(ctx context.Context, set func(context.Context, string) error, to string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := set(ctx, to)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return SilentDaemon()
	case err != nil:
		return NotConnected(err)
	}
	return nil
}
