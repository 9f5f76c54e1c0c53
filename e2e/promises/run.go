package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A group is tests that one process runs.
type group struct {
	in    string
	long  bool
	names []string
}

// groups puts the tests of the promises together, each test once: those without a
// lab first, as they are the quicker ones, and long forms last.
func groups(of []promise) []group {
	var all []group
	for _, p := range of {
		for _, t := range p.shown {
			i := slices.IndexFunc(all, func(g group) bool { return g.in == t.in && g.long == t.long })
			if i < 0 {
				i = len(all)
				all = append(all, group{in: t.in, long: t.long})
			}
			if !slices.Contains(all[i].names, t.name) {
				all[i].names = append(all[i].names, t.name)
			}
		}
	}
	order := func(g group) int {
		n := 0
		if g.needsLab() {
			n++
		}
		if g.long {
			n += 2
		}
		return n
	}
	slices.SortStableFunc(all, func(a, b group) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.in, b.in))
	})
	return all
}

func (g group) needsLab() bool { return test{in: g.in}.needsLab() }

// test is the group's test of that name.
func (g group) test(name string) test { return test{g.in, name, g.long} }

// command is the go test that runs the group from the repository's root.
func (g group) command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-tags", "e2e", "-count=1", "-p", "1", "-parallel", "8", "-timeout", "5h",
		"-run", "^("+strings.Join(g.names, "|")+")$", "./"+g.in)
	if g.long {
		cmd.Env = append(os.Environ(), "PODNET_E2E_LONG=1")
	}
	return cmd
}

// run runs the group and calls done with each of its tests as it ends, then with
// those that have not run.
func (g group) run(ctx context.Context, show io.Writer, done func(test, result)) error {
	cmd := g.command(ctx)
	cmd.Stderr = show
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	missing := slices.Clone(g.names)
	follow(out, show, func(_, name string, r result) {
		if i := slices.Index(missing, name); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			done(g.test(name), r)
		}
	})
	err = cmd.Wait()
	for _, name := range missing {
		done(g.test(name), result{Outcome: absent})
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d tests of %s did not run: %w", len(missing), g.in, err)
	}
	return nil // a test that failed is a result
}

// event is a line of go test -json; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// figure is a line that a test prints of what it has measured, with the numbers
// of the promises that it is about: "MEASURED [6] what   value", or what package
// measure makes of one with a limit. It is not anchored, as it stands behind the file
// and line of a test's log.
var figure = regexp.MustCompile(`MEASURED \[([0-9, ]+)\] (.*)`)

// follow reads go test's events and calls done for each top-level test that
// ends, with its folder. It shows what failed tests said, and packages that failed.
func follow(out io.Reader, show io.Writer, done func(in, name string, r result)) {
	type key struct{ in, name string } // of a package as a whole the name is empty
	said := map[key]*strings.Builder{}
	measured := map[key]map[int][]string{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(show, lines.Text())
			continue
		}
		name, _, isPart := strings.Cut(e.Test, "/")
		k := key{strings.TrimPrefix(e.Package, module), name}
		switch e.Action {
		case "output", "build-output":
			if said[k] == nil {
				said[k], measured[k] = &strings.Builder{}, map[int][]string{}
			}
			said[k].WriteString(e.Output)
			numbers, text := readFigure(e.Output)
			for _, n := range numbers {
				measured[k][n] = append(measured[k][n], text)
			}
		case "pass", "fail", "skip":
			if isPart {
				continue
			}
			if name == "" { // the package as a whole
				if e.Action == "fail" && said[k] != nil {
					fmt.Fprint(show, said[k])
				}
				delete(said, k)
				continue
			}
			r := result{Outcome: map[string]outcome{"pass": passed, "fail": failed, "skip": skipped}[e.Action], Seconds: e.Elapsed, Measured: measured[k]}
			if r.Outcome != passed && said[k] != nil {
				fmt.Fprint(show, said[k])
			}
			delete(said, k)
			done(k.in, name, r)
		}
	}
	// What a process that died was at.
	for _, text := range said {
		fmt.Fprint(show, text)
	}
}

// module is what import paths of the repository's packages begin with.
const module = "podnet.dev/"

var gap = regexp.MustCompile(`\s{2,}`)

// readFigure gives the numbers of the promises that a line of output has a figure
// for, and the figure; no numbers if it has none.
func readFigure(line string) (numbers []int, text string) {
	m := figure.FindStringSubmatch(line)
	if m == nil {
		return nil, ""
	}
	for _, word := range strings.Split(m[1], ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(word)); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, gap.ReplaceAllString(strings.TrimSpace(m[2]), ": ")
}

// commit names what runs: the commit, and whether files were changed since.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }
