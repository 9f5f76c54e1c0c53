package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// printWideStatus is what -o wide adds to a status: who the other side is, and every
// path there is.
func printWideStatus(w io.Writer, s localapi.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range s.Connections {
		fmt.Fprintln(t)
		fmt.Fprintf(t, "SESSION\tCONTEXT\tSERVER\tPEER\tGATEWAY\tVERSION\tNAT\n")
		fmt.Fprintln(t, strings.Join([]string{c.Name, answer.OrDash(c.Context), answer.OrDash(c.Server), answer.OrDash(c.Peer), answer.OrDash(c.Gateway.Pod), answer.OrDash(c.Gateway.Version), answer.OrDash(c.NAT)}, "\t"))
		fmt.Fprintf(t, "\nPATH\tREMOTE\tSTATE\tRTT\tWHY\n")
		if c.Path.Kind != "" {
			fmt.Fprintln(t, strings.Join([]string{c.Path.Kind, answer.OrDash(c.Path.Remote), "in use", roundTrip(c.Path.RTTMs), c.Path.Reason}, "\t"))
		}
		for _, o := range c.Path.Others {
			state := "stand-by"
			if !o.Live {
				state = "dead"
			}
			fmt.Fprintln(t, strings.Join([]string{o.Kind, answer.OrDash(o.Remote), state, roundTrip(o.RTTMs), o.Error}, "\t"))
		}
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

func roundTrip(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return words.Milliseconds(ms)
}
