package inbound

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
	"podnet.dev/internal/steer"
)

// printRule is what there is to know of a rule that has just become ready.
func printRule(w io.Writer, r localapi.SteerRule, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", name, text) }
	verb := "steering"
	if r.Mode == string(steer.Mirror) {
		verb = "mirroring"
	}
	row(verb, fmt.Sprintf("%s: %s in namespace %s, port %s", r.Name, r.Target, r.Namespace, r.Port))
	if r.Via == "" {
		row("pods", agents(r))
	} else {
		row("via", "the Service itself: a gateway takes what reaches it, and passes on the rest")
	}
	for i, m := range words.Matches(r.Matches) {
		row(map[bool]string{true: "matches", false: "or"}[i == 0], m)
	}
	local := place(r.Local)
	if r.OnError == localapi.OnErrorApp {
		local += "; the pods where it does not answer"
	}
	row("to", local)
	for _, p := range r.Pods {
		if p.Text != "" {
			row(kindOf(r)+" "+p.Name, p.Text)
			if p.Hint != "" {
				row("", "hint: "+p.Hint)
			}
		}
	}
	if try := tryLine(r); try != "" {
		row("try", try)
	}
	if r.Inspect {
		row("inspect", "podnet steer inspect "+r.Name)
	}
	for _, o := range r.Others {
		row("beside", words.Line(o.Owner)+" steers this port too: "+o.Name)
	}
	switch {
	case r.Held:
		row("until", "this command ends")
	case r.ExpiresAt != nil:
		row("until", "podnet steer stop "+r.Name+", or the end of the session; the lease is renewed, and ends at "+r.ExpiresAt.Local().Format(time.TimeOnly)+" unless it is")
	default:
		row("until", "podnet steer stop "+r.Name+", or the end of the session")
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
}

func agents(r localapi.SteerRule) string {
	return fmt.Sprintf("%d/%d agents ready", r.Ready, len(r.Pods))
}

// kindOf is what a rule's pods are.
func kindOf(r localapi.SteerRule) string {
	if r.Via != "" {
		return "service"
	}
	return "pod"
}

// readiness is how many of a rule's pods are ready, or whether its Service is.
func readiness(r localapi.SteerRule) string {
	switch {
	case r.Via == "":
		return fmt.Sprintf("%d/%d", r.Ready, len(r.Pods))
	case r.Ready > 0:
		return "service"
	}
	return "service, not ready"
}

// takes is what a rule takes, in words.
func takes(r localapi.SteerRule) string {
	if r.Mode == localapi.ModeEgress {
		return "what its owner's machine sends leaves from the pod"
	}
	return strings.Join(words.Matches(r.Matches), " or ")
}

// tryLine is a curl command whose request the rule takes, "" where none is known.
func tryLine(r localapi.SteerRule) string {
	if r.Protocol != string(steer.TCP) || len(r.Pods) == 0 || r.Pods[0].Address == "" {
		return ""
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(r.Pods[0].Address, strconv.Itoa(int(r.Pods[0].Port))), Path: "/"}
	words := []string{"curl"}
	if len(r.Matches) > 0 {
		m := r.Matches[0]
		patterns := []string{m.Method, m.Host, m.Path}
		for _, c := range append(append([]steer.Condition{}, m.Headers...), m.Query...) {
			patterns = append(patterns, c.Value)
		}
		for _, p := range patterns {
			if strings.HasPrefix(p, "~") {
				return "" // who knows what it matches
			}
		}
		if m.GRPC != "" {
			return ""
		}
		if m.Method != "" {
			words = append(words, "-X", quote(instance(m.Method, "GET")))
		}
		if m.Host != "" {
			words = append(words, "-H", quote("Host: "+instance(m.Host, "web")))
		}
		for _, h := range m.Headers {
			words = append(words, "-H", quote(h.Name+": "+instance(h.Value, "x")))
		}
		if m.Path != "" {
			u.Path = instance(m.Path, "/")
		}
		q := url.Values{}
		for _, c := range m.Query {
			q.Add(c.Name, instance(c.Value, "x"))
		}
		u.RawQuery = q.Encode()
	}
	return strings.Join(append(words, quote(u.String())), " ")
}

// instance is something that a glob matches; where * alone is left, other.
func instance(glob, other string) string {
	if glob == "*" {
		return other
	}
	return strings.ReplaceAll(glob, "*", "")
}

// quote makes one word of a shell's.
func quote(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./:[]", c)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// printRules is a table of rules.
func printRules(w io.Writer, rules []localapi.SteerRule, owners bool, now time.Time) {
	if len(rules) == 0 {
		fmt.Fprintln(w, "nothing is steered")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	owner := ""
	if owners {
		owner = "OWNER\t"
	}
	fmt.Fprintf(t, "%sNAME\tNAMESPACE\tTARGET\tPORT\tTO\tMODE\tREADY\tMATCHED\tAGE\tMATCHES\n", owner)
	for _, r := range rules {
		if owners {
			owner = words.Line(r.Owner) + "\t"
		}
		age := ""
		if r.Since != nil {
			age = now.Sub(*r.Since).Round(time.Second).String()
		}
		matched := strconv.FormatInt(r.Matched, 10)
		if r.Failed > 0 {
			matched += fmt.Sprintf(" (%d failed)", r.Failed)
		}
		fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", owner, r.Name, r.Namespace, words.Line(r.Target), cmp.Or(r.Port, "-"), words.Line(cmp.Or(r.Local, "-")), r.Mode, readiness(r),
			matched, age, takes(r))
	}
	_ = t.Flush()
	for _, r := range rules {
		for _, p := range r.Pods {
			if p.Text == "" {
				continue
			}
			fmt.Fprintf(w, "%s, %s %s: %s\n", r.Name, kindOf(r), words.Line(p.Name), words.Line(p.Text))
			if p.Hint != "" {
				fmt.Fprintf(w, "  hint: %s\n", p.Hint)
			}
		}
	}
}

// describeRequest is a request in one line.
func describeRequest(q localapi.SteeredRequest) string {
	what := "connection"
	if q.Method != "" {
		what = q.Method + " " + q.Target
	}
	by := q.By
	if q.Mirror {
		by += " (copy)"
	}
	status := "-"
	if q.Status != 0 {
		status = strconv.Itoa(q.Status)
	}
	line := fmt.Sprintf("%s  %s  %s  %s  %s  %s", q.Time.Local().Format(words.TimeOfDay), what, status, words.Milliseconds(q.TookMs), q.Pod, by)
	if q.Method == "" {
		line += fmt.Sprintf("  %s in, %s out", words.Size(q.In), words.Size(q.Out))
	}
	if q.Error != "" {
		line += "  " + q.Error
	}
	return line
}

// printWideRules is what -o wide adds to a list of rules: each of their pods.
func printWideRules(w io.Writer, rules []localapi.SteerRule) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nRULE\tPOD\tADDRESS\tPORT\tSTATE\n")
	n := 0
	for _, r := range rules {
		for _, p := range r.Pods {
			n++
			fmt.Fprintln(t, strings.Join([]string{r.Name, words.Line(p.Name), answer.OrDash(p.Address), strconv.Itoa(int(p.Port)), string(p.State)}, "\t"))
		}
	}
	if n > 0 {
		_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
	}
}
