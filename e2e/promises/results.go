package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// outcome is how a test ended.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
	absent  outcome = "did not run"
)

// A result is what is known of a test's last run.
type result struct {
	Outcome outcome `json:"outcome"`
	Seconds float64 `json:"seconds"`
	Day     string  `json:"day"`    // of the run, in UTC
	Commit  string  `json:"commit"` // what ran
	// Measured are the figures that it printed, by the number of the promise.
	Measured map[int][]string `json:"measured,omitempty"`
}

// results are those of all tests, by the name that String gives them.
type results map[string]result

func (r results) of(t test) result {
	if got, ok := r[t.String()]; ok {
		return got
	}
	return result{Outcome: absent}
}

// read gives what an earlier run has left in file, nothing if there was none.
func read(file string) (results, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return results{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := results{}
	return r, json.Unmarshal(b, &r)
}

// write replaces file, whole or not at all.
func (r results) write(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".results-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// prune forgets tests that no promise names any more.
func (r results) prune(all []section) {
	named := map[string]bool{}
	for _, s := range all {
		for _, p := range s.promises {
			for _, t := range p.shown {
				named[t.String()] = true
			}
		}
	}
	for name := range r {
		if !named[name] {
			delete(r, name)
		}
	}
}
