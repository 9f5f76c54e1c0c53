package export

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/localapi"
)

// tellExport says what there is to know of a device that was just let in.
func tellExport(env *caller.Env, o exportFlags, e localapi.Export) {
	fmt.Fprintf(env.Notes(), "%s is let in until %s, and longer while this machine's podnet daemon runs, which renews it\n", e.Name, moment(e.ExpiresAt))
	fmt.Fprintf(env.Notes(), "its private key was handed over and is kept nowhere else; podnet export revoke %s shuts it out\n", e.Device)
	if len(o.req.Resolvers) == 0 {
		fmt.Fprintln(env.Notes(), "note: the gateway is the device's only resolver, and refuses names that are not the cluster's; --dns ADDRESS adds one for those")
	}
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

// printExports is a table of exports.
func printExports(w io.Writer, all []localapi.Export, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "nothing is exported")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tDEVICE\tNAMESPACES\tGATEWAY\tUNTIL\tRENEWED\tAGE")
	for _, e := range all {
		namespaces, renewed := strings.Join(e.Namespaces, ","), "no"
		if e.AllNamespaces {
			namespaces = "all"
		}
		if e.Renewed {
			renewed = "yes"
		}
		fmt.Fprintln(t, strings.Join([]string{e.Name, e.Device, namespaces, e.Gateway, moment(e.ExpiresAt), renewed, now.Sub(e.Made).Round(time.Second).String()}, "\t"))
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
	for _, e := range all {
		if e.Text == "" {
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", e.Name, e.Text)
		if e.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", e.Hint)
		}
	}
}
