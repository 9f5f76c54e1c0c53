package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// printStatus is for people; scripts read the JSON.
func printStatus(w io.Writer, s localapi.Status, now time.Time) {
	if len(s.Connections) == 0 {
		fmt.Fprintln(w, "not connected")
		if e := s.LastError; e != nil {
			fmt.Fprintf(w, "the last session ended: %s\n", e.Message)
		}
		for _, e := range s.Exports {
			fmt.Fprintf(w, "exported: %s\n", describeExport(e))
		}
		for _, warning := range s.Warnings {
			fmt.Fprintf(w, "warning: %s\nhint: %s\n", warning.Text, warning.Hint)
		}
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	several := len(s.Connections) > 1
	for i, c := range s.Connections {
		who := c.Name + " as " + c.User
		if several && c.Primary {
			who += ", primary"
		}
		if i > 0 {
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "%s\t%s\n", strings.ToLower(string(s.Of(c))), who)
		row := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", name, text) }
		if s.Of(c) == localapi.Connecting {
			row("phase", string(c.Phase))
			continue
		}
		row("namespaces", describeNamespaces(c))
		if c.As != nil {
			row("as", describeIdentity(*c.As))
		}
		row("gateway", describeGateway(c.Gateway))
		row("path", describePath(c))
		row("tunnel", describeTunnel(c.Tunnel))
		row("traffic", describeTraffic(c.Tunnel))
		printAddresses(row, c.Addresses)
		row("routes", strings.Join(c.Routes, ", "))
		row("dns", describeDNS(c.DNS, several, c.Primary))
		printTally(row, "steering", "rules", c.Steering)
		printTally(row, "exposing", "exposures", c.Exposing)
		if c.Lease.Renewed != nil {
			row("lease", describeLease(c.Lease, now))
		}
		if c.Since != nil {
			row("since", describeSince(c, now))
		}
	}
	for _, e := range s.Exports {
		fmt.Fprintf(t, "exported\t%s\n", describeExport(e))
	}
	if several && len(s.Warnings) > 0 {
		fmt.Fprintln(t)
	}
	for _, warning := range s.Warnings {
		text := warning.Text
		if several && warning.Connection != "" {
			text = warning.Connection + ": " + text
		}
		fmt.Fprintf(t, "warning\t%s\n", text)
		if warning.Hint != "" {
			fmt.Fprintf(t, "\thint: %s\n", warning.Hint)
		}
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

// printAddresses says where virtual addresses stand for the cluster's.
func printAddresses(row func(name, text string), a localapi.Addresses) {
	if len(a.Map) == 0 {
		return
	}
	row("addresses", "virtual: "+a.Why)
	for _, p := range a.Map {
		row("", p.Real+" at "+p.Virtual)
	}
	if a.Refused > 0 {
		row("", words.Refused(a.Refused, a.LastRefused))
	}
}

// printTally is a row for what there is, and one for each that is in trouble.
func printTally(row func(name, text string), name, things string, t localapi.Tally) {
	if t.Count == 0 {
		return
	}
	row(name, fmt.Sprintf("%d of %d %s ready", t.Ready, t.Count, things))
	for _, trouble := range t.Trouble {
		row("", trouble)
	}
}

func describeNamespaces(c localapi.Connection) string {
	if c.AllNamespaces {
		return "all, short names of " + c.Namespace
	}
	return strings.Join(c.Namespaces, ", ")
}

// describeDNS names the zones that are a session's, its alias where there are others.
func describeDNS(d localapi.DNS, several, primary bool) string {
	zones := d.Zone
	switch {
	case several && primary:
		zones += ", " + d.Alias
	case several:
		zones = d.Alias
	}
	text := fmt.Sprintf("%s by %s on %s, ", zones, d.Mode, strings.Join(d.Listen, ", "))
	if !d.Healthy {
		return text + "NOT healthy"
	}
	return text + "healthy"
}

func describeIdentity(as localapi.Identity) string {
	if as.Pod == "" {
		return "no pod of " + as.Target + " yet: " + as.Text
	}
	return "pod/" + as.Pod + " of " + as.Target + " in namespace " + as.Namespace
}

func describeGateway(g localapi.Gateway) string {
	text := g.Namespace + "/" + g.Pod
	if g.Mode == localapi.ModeNamespace {
		text += ", namespace mode (" + g.Namespace + ")"
	}
	if g.Draining {
		text += ", about to stop"
	}
	if len(g.Others) > 0 {
		text += "; " + strings.Join(g.Others, ", ") + " stand-by"
	}
	return text
}

// describePath says which path is in use and why, and what stands by:
// "udp 203.0.113.7:31820, 11 ms; apiserver stand-by".
func describePath(c localapi.Connection) string {
	text := pathName(c.Path.Kind, c.Path.Remote)
	rtt := c.Path.RTTMs
	if rtt == 0 {
		rtt = c.Tunnel.RTTMs
	}
	if c.Path.Kind == "" {
		text = "none"
	} else if rtt > 0 {
		text += ", " + words.Milliseconds(rtt)
	}
	if why := strings.TrimPrefix(c.Path.Reason, c.Path.Kind+": "); why != "" {
		text += " (" + why + ")"
	}
	if c.Path.Redials > 0 {
		text += ", dialled anew " + times(c.Path.Redials)
	}
	var standby []string
	for _, o := range c.Path.Others {
		if o.Live {
			standby = append(standby, pathName(o.Kind, o.Remote))
		}
	}
	if n := len(standby); n > 3 {
		standby = append(standby[:2], fmt.Sprintf("%d more", n-2))
	}
	if len(standby) > 0 {
		text += "; " + strings.Join(standby, ", ") + " stand-by"
	}
	return text
}

// pathName leaves out where a stream ends: that is the gateway's pod.
func pathName(kind, remote string) string {
	if kind == "apiserver" || remote == "" {
		return kind
	}
	return kind + " " + remote
}

func describeTunnel(t localapi.Tunnel) string {
	text := fmt.Sprintf("%s %s, MTU %d", t.Interface, strings.TrimSpace(t.Address+" "+t.Address6), t.MTU)
	if t.Device == localapi.DeviceKernel {
		text += ", the kernel's WireGuard"
	}
	return text
}

func describeTraffic(t localapi.Tunnel) string {
	text := fmt.Sprintf("received %s, sent %s", words.Size(t.Rx), words.Size(t.Tx))
	if t.LastHandshake == "" {
		return text + "; no handshake yet"
	}
	return text + "; last handshake " + t.LastHandshake + " ago"
}

func describeLease(l localapi.Lease, now time.Time) string {
	text := fmt.Sprintf("%v, renewed %v ago", time.Duration(l.Seconds)*time.Second, now.Sub(*l.Renewed).Round(time.Second))
	if l.ExpiresAt != nil {
		text += ", ends at " + l.ExpiresAt.Local().Format(time.TimeOnly) + " unless renewed"
	}
	if l.Frozen {
		text += "; the API server is away and the gateway keeps us"
	}
	return text
}

func describeSince(c localapi.Connection, now time.Time) string {
	text := fmt.Sprintf("%s (%v)", c.Since.Local().Format(time.DateTime), now.Sub(*c.Since).Round(time.Second))
	if c.Reenrolled > 0 {
		text += ", enrolled again " + times(c.Reenrolled)
	}
	return text
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// describeEvent is an event in one line, false for one that says nothing new.
func describeEvent(e localapi.Event) (string, bool) {
	word, text := string(e.Type), e.Text
	switch e.Type {
	case localapi.EventPhase:
		return "", false
	case localapi.EventDone:
		word = string(e.Phase)
	case localapi.EventReady:
		text = "connected"
	}
	if e.Connection != "" {
		text = e.Connection + ": " + text
	}
	return fmt.Sprintf("%s  %-12s  %s", e.Time.Local().Format(time.DateTime), word, text), true
}

// describeExport is an export in one line of a status.
func describeExport(e localapi.Export) string {
	text := e.Name + " until " + e.ExpiresAt.Local().Format(time.DateTime)
	if e.Text != "" {
		text += "; " + e.Text
	}
	return text
}
