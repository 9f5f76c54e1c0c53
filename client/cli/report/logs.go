package report

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

// lookEvery is how often a log that is followed is looked at.
const lookEvery = 200 * time.Millisecond

func newLogs(env *caller.Env, file string) *cobra.Command {
	var o logOptions
	var since string
	cmd := &cobra.Command{
		Use:   "logs [-f] [--since TIME]",
		Short: "Print what the daemon has written down",
		Long: `Print what the daemon has written down, also the one before it. Two files are
kept, of 4 MiB each at most; podnet version names the newer one.

  podnet logs --since 10m
  podnet logs -f --tail 20`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.setSince(since, time.Now()); err != nil {
				return err
			}
			path := file
			c, _ := session.Client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), session.CallTime)
			defer cancel()
			if v, err := c.Version(ctx); err == nil && v.Log != "" {
				path = v.Log
			}
			return o.print(cmd.Context(), env.Out, path)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes, until interrupted")
	f.StringVar(&since, "since", "", "from when on: a duration back, as 10m, or a time, as 2006-01-02T15:04:05Z")
	f.IntVar(&o.tail, "tail", -1, "how many of the last lines (default: all)")
	for _, name := range []string{"follow", "since", "tail"} {
		f.Lookup(name).Annotations = map[string][]string{flags.NoVariable: {}}
	}
	return cmd
}

// logOptions say what of a log is asked for.
type logOptions struct {
	follow bool
	tail   int // below 0: all
	since  time.Time
}

func (o *logOptions) setSince(text string, now time.Time) error {
	if text == "" {
		return nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		o.since = now.Add(-d)
		return nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			o.since = t
			return nil
		}
	}
	return &localapi.Error{Code: localapi.CodeUsage, Message: "--since " + text + " is neither a duration nor a time", Hint: "--since 10m, --since 2006-01-02T15:04:05Z"}
}

// print writes the log of a path, the one that was set aside first.
func (o *logOptions) print(ctx context.Context, w io.Writer, path string) error {
	lines := &logLines{since: o.since, keep: o.tail, out: w}
	if old, err := os.Open(path + ".1"); err == nil {
		err = lines.copy(bufio.NewReader(old))
		_ = old.Close() // it was only read
		if err != nil {
			return err
		}
	}
	f, err := os.Open(path)
	for errors.Is(err, fs.ErrNotExist) && o.follow {
		if !wait(ctx, lookEvery) {
			return nil
		}
		f, err = os.Open(path)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no log at " + path, Hint: "the daemon writes one once it runs: podnet connect"}
		}
		return err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReader(f)
	if err := lines.copy(r); err != nil {
		return err
	}
	if err := lines.flush(); err != nil || !o.follow {
		return err
	}
	for wait(ctx, lookEvery) {
		now, err := os.Stat(path)
		if err := lines.copy(r); err != nil {
			return err
		}
		if was, _ := f.Stat(); err != nil || os.SameFile(was, now) {
			continue
		}
		next, err := os.Open(path) // the one that we have was set aside
		if err != nil {
			continue
		}
		_ = f.Close()
		f = next
		r.Reset(f)
	}
	return nil
}

// wait says whether the time has passed before ctx was done.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// logLines passes on the lines of a log that are asked for.
type logLines struct {
	since time.Time
	keep  int // how many to hold back until flush; below 0: none
	out   io.Writer

	held []string
	part string // of a line that is not whole yet
	old  bool   // the last line with a time was too old
}

// copy takes what there is to read.
func (l *logLines) copy(r *bufio.Reader) error {
	for {
		text, err := r.ReadString('\n')
		l.part += text
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line := l.part
		l.part = ""
		if err := l.line(line); err != nil {
			return err
		}
	}
}

// line takes one. Who has no time of its own, as a stack has, shares the fate of the
// one before.
func (l *logLines) line(text string) error {
	if at, ok := timeOf(text); ok {
		l.old = at.Before(l.since)
	}
	switch {
	case l.old:
		return nil
	case l.keep < 0:
		_, err := io.WriteString(l.out, text)
		return err
	case l.keep > 0:
		l.held = append(l.held, text)
		l.held = l.held[max(0, len(l.held)-l.keep):]
	}
	return nil
}

// flush passes on what was held back, and from then on everything.
func (l *logLines) flush() error {
	_, err := io.WriteString(l.out, strings.Join(l.held, ""))
	l.keep, l.held = -1, nil
	return err
}

// timeOf is when a line of the log was written.
func timeOf(line string) (time.Time, bool) {
	text, ok := strings.CutPrefix(line, "time=")
	if !ok {
		return time.Time{}, false
	}
	text, _, _ = strings.Cut(text, " ")
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}
