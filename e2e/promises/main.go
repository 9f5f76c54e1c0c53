// Command promises runs the tests that show what podnet promises, prints how each
// promise stands, and writes docs/promises.md. It wants to be started at the top
// of the repository, by `make promises`, which builds what the tests use.
//
//	promises            run the tests of all promises
//	promises 1-12 44    of these
//	promises rest       of those that are red: what an interrupted run has left
//	promises -page      run nothing, write the page anew from the table
//
//	promises -from unit.json -from e2e.json -from-long long.log
//
// runs nothing either: it reads what other runs of go test have said, by -json or by
// -v. What -from-long names was run with PODNET_E2E_LONG. FILE@COMMIT says at which
// commit, where that is not the one that is checked out.
//
// What the tests did is kept in results.json beside this file, one by one as they
// end, so that nothing is lost when a run is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const (
	resultsFile = "e2e/promises/results.json"
	pageFile    = "docs/promises.md"
)

func main() {
	pageOnly := flag.Bool("page", false, "run nothing, write "+pageFile+" anew")
	var told []saying
	flag.Func("from", "read what go test has said, from `FILE[@COMMIT]`", func(s string) error { told = append(told, newSaying(s, false)); return nil })
	flag.Func("from-long", "the same of the long form", func(s string) error { told = append(told, newSaying(s, true)); return nil })
	flag.Parse()
	if err := do(*pageOnly, told, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "promises:", err)
		os.Exit(1)
	}
}

func do(pageOnly bool, told []saying, words []string) error {
	r, err := read(resultsFile)
	if err != nil {
		return err
	}
	r.prune(promises)
	if pageOnly {
		return keep(r)
	}
	for _, s := range told {
		if err := r.hear(s); err != nil {
			return err
		}
	}
	if len(told) > 0 {
		r.prune(promises)
		if err := keep(r); err != nil {
			return err
		}
	}
	chosen, err := choose(words, promises, r)
	if err != nil {
		return err
	}
	if len(told) > 0 {
		table(os.Stdout, chosen, r)
		return verdict(chosen, r)
	}
	// The first interrupt ends go test, and with it what runs; the lab still goes down.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The page is written at the end: some tests look at all documents, twice.
	err = runAll(ctx, groups(chosen), r)
	if err := errors.Join(err, keep(r)); err != nil {
		return err
	}
	table(os.Stdout, chosen, r)
	return verdict(chosen, r)
}

// runAll runs the groups, with one lab for all that need one, and keeps each
// result as it comes.
func runAll(ctx context.Context, all []group, r results) error {
	began, commit := time.Now(), commit()
	lab := false
	for i, g := range all {
		if g.needsLab() && !lab {
			down, err := labUp(ctx)
			defer down()
			if err != nil {
				return err
			}
			lab = true
		}
		fmt.Printf("promises %s: %d of %d, %s: %d tests\n", time.Since(began).Round(time.Second), i+1, len(all), g.in, len(g.names))
		err := g.run(ctx, os.Stderr, func(t test, got result) {
			got.Day, got.Commit = today(), commit
			r[t.String()] = got
			fmt.Printf("promises %s: %s %s, %.1f s\n", time.Since(began).Round(time.Second), t, got.Outcome, got.Seconds)
			if err := r.write(resultsFile); err != nil {
				fmt.Fprintln(os.Stderr, "promises:", err)
			}
		})
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted; `make promises PROMISES=rest` goes on")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "promises:", err)
		}
	}
	return nil
}

// labUp starts a lab if none runs, for all groups together, and gives what ends it.
func labUp(ctx context.Context) (down func(), err error) {
	if exec.CommandContext(ctx, "bin/lab", "status").Run() == nil {
		return func() {}, nil
	}
	lab := func(ctx context.Context, what string) error {
		cmd := exec.CommandContext(ctx, "bin/lab", what)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	down = func() { _ = lab(context.Background(), "down") }
	if err := lab(ctx, "up"); err != nil {
		return down, fmt.Errorf("bin/lab up: %w", err)
	}
	return down, nil
}

// keep writes what is known, and the page of it.
func keep(r results) error {
	if err := r.write(resultsFile); err != nil {
		return err
	}
	return os.WriteFile(pageFile, []byte(page(promises, r)), 0o644)
}

// verdict is an error if a promise is red.
func verdict(chosen []promise, r results) error {
	count := map[colour]int{}
	for _, p := range chosen {
		c, _ := p.colour(r)
		count[c]++
	}
	fmt.Printf("%d green, %d amber, %d red\n", count[green], count[amber], count[red])
	if count[red] > 0 {
		return fmt.Errorf("%d of %d promises are red", count[red], len(chosen))
	}
	return nil
}
