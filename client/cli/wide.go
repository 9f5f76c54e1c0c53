package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

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
		fmt.Fprintln(t, strings.Join([]string{c.Name, orDash(c.Context), orDash(c.Server), orDash(c.Peer), orDash(c.Gateway.Pod), orDash(c.Gateway.Version), orDash(c.NAT)}, "\t"))
		fmt.Fprintf(t, "\nPATH\tREMOTE\tSTATE\tRTT\tWHY\n")
		if c.Path.Kind != "" {
			fmt.Fprintln(t, strings.Join([]string{c.Path.Kind, orDash(c.Path.Remote), "in use", roundTrip(c.Path.RTTMs), c.Path.Reason}, "\t"))
		}
		for _, o := range c.Path.Others {
			state := "stand-by"
			if !o.Live {
				state = "dead"
			}
			fmt.Fprintln(t, strings.Join([]string{o.Kind, orDash(o.Remote), state, roundTrip(o.RTTMs), o.Error}, "\t"))
		}
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

// printWideRules is what -o wide adds to a list of rules: each of their pods.
func printWideRules(w io.Writer, rules []localapi.SteerRule) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nRULE\tPOD\tADDRESS\tPORT\tSTATE\n")
	n := 0
	for _, r := range rules {
		for _, p := range r.Pods {
			n++
			fmt.Fprintln(t, strings.Join([]string{r.Name, p.Name, orDash(p.Address), strconv.Itoa(int(p.Port)), string(p.State)}, "\t"))
		}
	}
	if n > 0 {
		_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
	}
}

// printWideExposures is what -o wide adds to a list of exposures: how to reach them.
func printWideExposures(w io.Writer, all []localapi.Exposure) {
	if len(all) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nNAME\tREACH IT AT\n")
	for _, e := range all {
		fmt.Fprintf(t, "%s\t%s\n", e.Name, reachLine(e))
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

func roundTrip(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return words.Milliseconds(ms)
}
