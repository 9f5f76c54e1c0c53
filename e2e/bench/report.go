package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// report prints the medians of a run and what they make of the goals.
func (r *record) report(out io.Writer) {
	for _, mode := range r.modes() {
		t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintf(t, "\nmode %s\t%s\tgoals\n", mode, strings.Join(r.systems(), "\t"))
		for _, f := range figures {
			of := map[string]float64{}
			line := []string{f.title + ", " + f.unit}
			for _, system := range r.systems() {
				cell := "-"
				if v := r.values(mode, system, f.name); len(v) > 0 {
					of[system] = median(v)
					cell = fmt.Sprintf(f.format, of[system])
				}
				line = append(line, cell)
			}
			if len(of) == 0 {
				continue
			}
			var goals []string
			for _, g := range f.goals {
				if g.mode == "" || g.mode == mode {
					if text := f.text(g, of); text != "" {
						goals = append(goals, text)
					}
				}
			}
			fmt.Fprintf(t, "%s\t%s\n", strings.Join(line, "\t"), strings.Join(goals, "; "))
		}
		t.Flush()
	}
}
