package jsonpath

import (
	"strings"
	"testing"
)

type session struct {
	Name   string   `json:"name"`
	Rx     int64    `json:"rx"`
	RTT    float64  `json:"rtt"`
	Routes []string `json:"routes"`
	Gone   string   `json:"gone,omitempty"`
}

var document = struct {
	State    string    `json:"state"`
	Sessions []session `json:"sessions"`
}{"Connected", []session{{"lab", 123456789, 1.5, []string{"10.96.0.0/12", "10.244.0.0/16"}, ""}, {"blue", 7, 20, nil, ""}}}

func TestPrint(t *testing.T) {
	for template, want := range map[string]string{
		"{.state}":              "Connected",
		".state":                "Connected",
		"state":                 "Connected",
		"{.sessions[0].rx}":     "123456789",
		"{.sessions[0].rtt}":    "1.5",
		"{.sessions[*].name}":   "lab blue",
		"sessions[-1:].name":    "blue",
		"{.sessions[0].gone}":   "",
		"{.nobody.knows}":       "",
		"{.sessions[0].routes}": `["10.96.0.0/12","10.244.0.0/16"]`,
		"{.state} {.nothing}in": "Connected in",
		`{.state}{"\n"}`:        "Connected\n",
		`{range .sessions[*]}{.name}={.rx};{end}`: "lab=123456789;blue=7;",
		`{.sessions[?(@.rx>100)].name}`:           "lab",
		`{.sessions[?(@.name=="blue")].rtt}`:      "20",
	} {
		parsed, err := Parse(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		for range 2 { // a template is good for many documents
			var got strings.Builder
			if err := parsed.Print(&got, document); err != nil || got.String() != want {
				t.Errorf("%s: %q, %v, want %q", template, got.String(), err, want)
			}
		}
	}
}

func TestWrongTemplates(t *testing.T) {
	for _, template := range []string{"", "{}", "{.}", "{.state", "{.sessions[}", `{.sessions[?(@.rx>]}`, "{.a}}{"} {
		if _, err := Parse(template); err == nil {
			t.Errorf("%q is a template", template)
		}
	}
	for template, says := range map[string]string{"{.sessions[2].name}": "out of bounds", "{state}": "unrecognized identifier"} {
		parsed, err := Parse(template)
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.Print(&strings.Builder{}, document); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", template, err)
		}
	}
}
