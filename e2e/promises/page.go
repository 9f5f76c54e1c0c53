package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

const head = `# What is promised, and what shows it

Each line is a statement that somebody else can check, with the tests that show it and what they measured when they last
ran. ` + "`make promises`" + ` runs them and writes this page; ` + "`make promises PROMISES='1-12 44'`" + ` runs some of them, ` + "`PROMISES=rest`" + `
those that are red. The table itself is in ` + "`e2e/promises`" + `, where a unit test sees to it that no number is missing and that every
test exists.

- **green**: tests that passed show all of it, and every limit of it was measured and is met.
- **amber**: tests that passed show a part; what they do not show, and which limit they did not measure, is said.
- **RED**: no test shows it, one of its tests failed, was skipped or has not run, or a limit is not met.

A test rarely fails for being slow, as a machine that others keep busy is no broken program: this page is what judges numbers.
A limit is met when the last run measured nothing beyond it, however often it measured.

Where one Linux machine cannot run something (other operating systems, clouds, meshes), the line says what was done instead.
Tests marked *long* are the long forms of those of ` + "`make e2e`" + ` (PODNET_E2E_LONG).
`

// page is docs/promises.md.
func page(all []section, r results) string {
	var b strings.Builder
	b.WriteString(head)
	count := map[colour]int{}
	total := 0
	for _, s := range all {
		for _, p := range s.promises {
			c, _ := p.colour(r)
			count[c]++
			total++
		}
	}
	fmt.Fprintf(&b, "\nOf %d promises %d are green, %d amber and %d red.\n", total, count[green], count[amber], count[red])
	fmt.Fprintf(&b, "%s\n", runs(r))
	for _, s := range all {
		fmt.Fprintf(&b, "\n## %s\n\n| | | Promise | Shown by | Measured |\n|--:|---|---|---|---|\n", s.title)
		for _, p := range s.promises {
			c, _ := p.colour(r)
			says := p.says
			for _, n := range p.notes(r) {
				says += fmt.Sprintf("<br>*%s:* %s", n.word, n.text)
			}
			fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", p.number, mark(c), cell(says), cell(shownBy(p.shown)), cell(strings.Join(p.measured(r), "<br>")))
		}
	}
	return b.String()
}

// A note is said of a promise below it.
type note struct{ word, text string }

func (p promise) notes(r results) []note {
	_, why := p.colour(r)
	all := []note{{"Red", why}, {"Not measured", strings.Join(p.unmeasured(r), ", ")}, {"Not shown", p.missing}, {"Elsewhere", p.instead}}
	return slices.DeleteFunc(all, func(n note) bool { return n.text == "" })
}

func mark(c colour) string {
	if c == green {
		return string(c)
	}
	return "**" + string(c) + "**"
}

// cell is text for a table's cell.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// shownBy lists tests, a folder once.
func shownBy(tests []test) string {
	var parts []string
	in := ""
	for _, t := range tests {
		name := "`" + t.name + "`"
		if t.long {
			name += " *long*"
		}
		if t.in != in {
			in = t.in
			name = in + ": " + name
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, "<br>")
}

// runs says when what ran.
func runs(r results) string {
	count := map[string]int{}
	seconds := 0.0
	for _, got := range r {
		if got.Outcome != absent {
			count[fmt.Sprintf("%s at %s", got.Day, got.Commit)]++
			seconds += got.Seconds
		}
	}
	if len(count) == 0 {
		return "None of the tests has run."
	}
	var parts []string
	for run, n := range count {
		parts = append(parts, fmt.Sprintf("%s (%d tests)", run, n))
	}
	slices.Sort(parts)
	return fmt.Sprintf("Ran on %s; %.0f minutes together, one after the other.", strings.Join(parts, ", "), seconds/60)
}

// table shows how promises stand, for a terminal.
func table(w io.Writer, chosen []promise, r results) {
	for _, p := range chosen {
		c, _ := p.colour(r)
		fmt.Fprintf(w, "%3d  %-5s  %s\n", p.number, c, p.says)
		for _, n := range p.notes(r) {
			fmt.Fprintf(w, "            %s: %s\n", strings.ToLower(n.word), n.text)
		}
		for _, m := range p.measured(r) {
			fmt.Fprintf(w, "            = %s\n", m)
		}
	}
}
