package inbound

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"

	"podnet.dev/client/localapi"
)

// steerKind is the kind of a document with a rule.
const steerKind = "Steer"

// steerDocument is one rule in a file. Who makes it and how long it lives is not
// for a file to say.
type steerDocument struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	localapi.SteerRequest
}

var separator = regexp.MustCompile(`(?m)^---([ \t].*)?\r?$`)

// readRules reads YAML or JSON documents. All of them are checked.
func readRules(raw []byte) ([]localapi.SteerRequest, error) {
	var out []localapi.SteerRequest
	for i, text := range separator.Split(string(raw), -1) {
		r, err := readRule([]byte(text))
		switch {
		case errors.Is(err, errNothing):
			continue
		case err != nil:
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no rule in it")
	}
	return out, nil
}

var errNothing = errors.New("nothing")

func readRule(text []byte) (localapi.SteerRequest, error) {
	var fields map[string]any
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return localapi.SteerRequest{}, err
	}
	if len(fields) == 0 {
		return localapi.SteerRequest{}, errNothing
	}
	for _, name := range []string{"port", "local"} {
		if n, ok := fields[name].(float64); ok { // YAML takes 8080 for a number
			fields[name] = fmt.Sprint(int64(n))
		}
	}
	for _, name := range []string{"kube", "hold"} {
		if fields[name] != nil {
			return localapi.SteerRequest{}, fmt.Errorf("there is no field %q", name)
		}
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return localapi.SteerRequest{}, err
	}
	var d steerDocument
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&d); err != nil {
		return localapi.SteerRequest{}, err
	}
	if d.APIVersion != localapi.APIVersion || d.Kind != steerKind {
		return localapi.SteerRequest{}, fmt.Errorf("want apiVersion %s and kind %s, not %q and %q", localapi.APIVersion, steerKind, d.APIVersion, d.Kind)
	}
	return d.SteerRequest, d.Check()
}
