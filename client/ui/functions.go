package ui

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/version"
)

// functions are what the templates say things by.
var functions = template.FuncMap{
	"age":     func(now time.Time, t any) string { return age(now, moment(t)) },
	"clock":   func(t time.Time) string { return t.Local().Format(time.TimeOnly) },
	"exactly": func(t time.Time) string { return t.Local().Format(words.TimeOfDay) },
	"stamp":   func(t time.Time) string { return t.Format(time.RFC3339Nano) },
	"ms":      words.Milliseconds,
	"size":    words.Size,
	"refused": words.Refused,
	"matches": func(all []steer.Match) string { return strings.Join(words.Matches(all), " or ") },
	"join":    func(all []string) string { return strings.Join(all, ", ") },
	"lower":   func(v any) string { return strings.ToLower(fmt.Sprint(v)) },
	"to":      to,
	"version": func() string { return version.Version },
	"who":     who,
	"nav":     func() []string { return []string{"/", "/services", "/names", "/steering"} },
	"title":   func(path string) string { return pages[path].title },
	"lines":   func(all []string) string { return strings.Join(all, "\n") },
	"happens": happens,
	"code":    statusClass,
	"under":   func(path, of string) bool { return path == of || path == "/rule" && of == "/steering" },
	"state":   stateOf,
	"warns":   func(all []localapi.Warning, name string) []localapi.Warning { return warnings(all, name) },
}

// moment is a time or a pointer to one; zero: none.
func moment(t any) time.Time {
	switch t := t.(type) {
	case time.Time:
		return t
	case *time.Time:
		if t != nil {
			return *t
		}
	}
	return time.Time{}
}

// age is how long ago something was, in its two largest units.
func age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	s := int64(math.Round(max(now.Sub(t), 0).Seconds()))
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s%86400/3600)
}

func rate(v float64) string { return words.Size(int64(v)) + "/s" }

// who says who answered a question for a name.
func who(q localapi.DNSQuery) string {
	if len(q.Asked) == 0 {
		return "podnet itself"
	}
	last := q.Asked[len(q.Asked)-1]
	text := map[string]string{"cluster": "the cluster", "base": "this machine's resolver"}[last.Of]
	switch {
	case last.Error != "":
		return text + ": " + last.Error
	case last.Cached:
		return text + ", remembered"
	}
	return text
}

// happens is an event in words; "" is one that says nothing new.
func happens(e localapi.Event) string {
	switch e.Type {
	case localapi.EventPhase:
		return ""
	case localapi.EventDone:
		return string(e.Phase) + ": " + e.Text
	case localapi.EventReady:
		return "connected"
	case localapi.EventError, localapi.EventEnded:
		if e.Error != nil {
			return e.Error.Message
		}
	}
	return e.Text
}

// statusClass is how an HTTP status went: ok, moved, wrong or failed.
func statusClass(status int) string {
	switch {
	case status >= 500:
		return "failed"
	case status >= 400:
		return "wrong"
	case status >= 300:
		return "moved"
	case status > 0:
		return "ok"
	}
	return ""
}

// warnings are those of a session, "" those of all.
func warnings(all []localapi.Warning, name string) []localapi.Warning {
	return slices.DeleteFunc(slices.Clone(all), func(w localapi.Warning) bool { return w.Connection != name })
}
