package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// A saying is a file of what a run of go test has said.
type saying struct {
	file   string
	commit string // what ran
	long   bool
}

func newSaying(flag string, long bool) saying {
	file, at, ok := strings.Cut(flag, "@")
	if !ok {
		at = commit()
	}
	return saying{file, at, long}
}

// hear takes in the results that a file tells. A long form that passed shows what the
// short one does.
func (r results) hear(s saying) error {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return err
	}
	info, err := os.Stat(s.file)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if text, err = events(text); err != nil {
			return fmt.Errorf("read %s: %w", s.file, err)
		}
	}
	n := 0
	follow(bytes.NewReader(text), io.Discard, func(in, name string, got result) {
		n++
		got.Day, got.Commit = info.ModTime().UTC().Format(time.DateOnly), s.commit
		r[test{in, name, s.long}.String()] = got
		if s.long && got.Outcome == passed {
			r[test{in, name, false}.String()] = got
		}
	})
	if n == 0 {
		return fmt.Errorf("%s tells of no test: it has to be what go test says with -json or -v", s.file)
	}
	return nil
}

// ofPackage is how go test ends what it says of a package.
var ofPackage = regexp.MustCompile(`^(?:ok|FAIL)\s+(` + regexp.QuoteMeta(module) + `\S+)\s`)

// events makes go test's events of what it says with -v. What names no package at its
// end is of ./e2e, whose tests are run by themselves as well.
func events(text []byte) ([]byte, error) {
	var all, part bytes.Buffer
	convert := func(name string) error {
		var said bytes.Buffer
		cmd := exec.Command("go", "tool", "test2json", "-p", name)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = &part, &all, &said
		err := cmd.Run()
		part.Reset()
		if err != nil {
			return errors.Join(err, errors.New(said.String()))
		}
		return nil
	}
	for line := range bytes.Lines(text) {
		part.Write(line)
		if m := ofPackage.FindSubmatch(line); m != nil {
			if err := convert(string(m[1])); err != nil {
				return nil, err
			}
		}
	}
	err := convert(module + "e2e")
	return all.Bytes(), err
}
