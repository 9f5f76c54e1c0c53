package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// record is a run, as it is written to a file.
type record struct {
	Time    time.Time `json:"time"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	Go      string    `json:"go"`
	Quick   bool      `json:"quick,omitempty"`
	Samples []sample  `json:"samples"`
}

// sample is what one system gave in one round on one kind of link.
type sample struct {
	Mode    string `json:"mode"`
	System  string `json:"system"`
	Round   int    `json:"round"` // from 1
	Figures result `json:"figures"`
}

func newRecord(quick bool) *record {
	r := &record{Time: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Go: runtime.Version(), Quick: quick}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return r
}

// values are a figure's in all rounds.
func (r *record) values(mode, system, figure string) (all []float64) {
	for _, s := range r.Samples {
		if v, ok := s.Figures[figure]; ok && s.Mode == mode && s.System == system {
			all = append(all, v)
		}
	}
	return all
}

// modes and systems are those that occur, in the order in which they did.
func (r *record) modes() (all []string) {
	for _, s := range r.Samples {
		if !slices.Contains(all, s.Mode) {
			all = append(all, s.Mode)
		}
	}
	return all
}

func (r *record) systems() (all []string) {
	for _, s := range r.Samples {
		if !slices.Contains(all, s.System) {
			all = append(all, s.System)
		}
	}
	return all
}

// write writes the run as JSON, and beside it, in a file that ends in .txt, as the
// text that benchstat reads.
func (r *record) write(name string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(strings.TrimSuffix(name, ".json") + ".txt")
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	r.benchfmt(w)
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// benchfmt writes a line for each figure of each sample, as a Go benchmark would.
func (r *record) benchfmt(w *bufio.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\nkernel: %s\n", runtime.GOOS, runtime.GOARCH, r.Kernel)
	for _, s := range r.Samples {
		for _, f := range figures {
			if v, ok := s.Figures[f.name]; ok {
				fmt.Fprintf(w, "Benchmark%s/mode=%s/system=%s 1 %v %s\n", f.name, s.Mode, strings.ReplaceAll(s.System, " ", "-"), v, f.unit)
			}
		}
	}
}
