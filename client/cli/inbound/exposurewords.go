package inbound

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// printExposure is what there is to know of an exposure that has just become ready.
func printExposure(w io.Writer, e localapi.Exposure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", name, text) }
	row("exposing", fmt.Sprintf("%s in namespace %s, %s", e.Name, e.Namespace, portWords(e)))
	row("to", place(e.Local))
	row("reach it", reachLine(e))
	lease := ""
	if e.ExpiresAt != nil {
		lease = "; the lease is renewed, and ends at " + e.ExpiresAt.Local().Format(time.TimeOnly) + " unless it is"
	}
	if e.Held {
		row("until", "this command ends"+lease)
	} else {
		row("until", "podnet expose stop "+e.Name+", or the end of the session"+lease)
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

// place is a port of this machine, or another host's.
func place(local string) string {
	if strings.Contains(local, ":") {
		return local
	}
	return "port " + local + " of this machine"
}

func portWords(e localapi.Exposure) string {
	words := "port "
	if len(e.Ports) > 1 {
		words = "ports "
	}
	return words + portList(e)
}

func portList(e localapi.Exposure) string {
	var all []string
	for _, p := range e.Ports {
		text := strconv.Itoa(int(p))
		if e.Protocol == "udp" {
			text += "/udp"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// reachLine is what a program in the cluster would be told.
func reachLine(e localapi.Exposure) string {
	host := e.Name + "." + e.Namespace
	switch {
	case len(e.Ports) == 0:
		return host
	case e.Protocol == "udp":
		return fmt.Sprintf("%s:%d, by UDP", host, e.Ports[0])
	case slices.Contains(e.Ports, 80):
		return "http://" + host
	}
	return fmt.Sprintf("http://%s:%d", host, e.Ports[0])
}

// printExposures is a table of exposures.
func printExposures(w io.Writer, all []localapi.Exposure, owners bool, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "nothing is exposed")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if owners {
		fmt.Fprintln(t, "OWNER\tNAME\tNAMESPACE\tPORTS\tTO\tSTATE\tAGE")
	} else {
		fmt.Fprintln(t, "NAME\tNAMESPACE\tPORTS\tTO\tSTATE\tCONNECTIONS\tAGE")
	}
	for _, e := range all {
		age := ""
		if e.Since != nil {
			age = now.Sub(*e.Since).Round(time.Second).String()
		}
		taken := strconv.FormatInt(e.Connections, 10)
		if e.Failed > 0 {
			taken += fmt.Sprintf(" (%d failed)", e.Failed)
		}
		row := []string{e.Name, e.Namespace, portList(e), e.Local, string(e.State), taken, age}
		if owners { // who took what is known at home only
			row = []string{words.Line(e.Owner), e.Name, e.Namespace, portList(e), words.Line(e.Local), string(e.State), age}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
	for _, e := range all {
		if e.Text == "" {
			continue
		}
		fmt.Fprintf(w, "%s/%s: %s\n", e.Namespace, e.Name, e.Text)
		if e.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", e.Hint)
		}
	}
}

// describeConnection is a connection in one line.
func describeConnection(c localapi.ExposedConnection) string {
	line := fmt.Sprintf("%s  connection  %s  %s in, %s out", c.Time.Local().Format(words.TimeOfDay), words.Milliseconds(c.TookMs), words.Size(c.In), words.Size(c.Out))
	if c.Error != "" {
		line += "  " + c.Error
	}
	return line
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
