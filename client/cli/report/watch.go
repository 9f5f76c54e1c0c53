package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

const (
	// redrawEvery is how old the numbers on a terminal may get.
	redrawEvery = time.Second
	// shownEvents is how many events stand below the status on a terminal.
	shownEvents = 8
)

// watch shows what is connected and what happens to it until ctx is done. On a
// terminal it redraws the status; elsewhere it prints a line for each event, as
// JSON if asked. A daemon that ends or has not started yet is waited for.
func watch(ctx context.Context, env *caller.Env, c *localapi.Client, output string) error {
	s, err := session.Status(ctx, c)
	if err != nil {
		return exit.UnlessInterrupted(ctx, err)
	}
	terminal := !answer.ForPrograms(output) && env.Interactive(env.Out)
	since := s.Seq
	if terminal {
		since = 0 // there is room for what was
	} else if !answer.ForPrograms(output) {
		fmt.Fprintln(words.Shown(env.Out), summary(s, time.Now()))
	}
	news, ended := make(chan localapi.Event), make(chan error, 1)
	following, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { ended <- follow(following, c, since, news) })
	defer wg.Wait()
	defer stop()
	if terminal {
		err = draw(ctx, env, c, news, ended)
	} else {
		err = list(env.Out, output, news, ended)
	}
	return exit.UnlessInterrupted(ctx, err)
}

// follow sends events, of one daemon after the other.
func follow(ctx context.Context, c *localapi.Client, since int64, news chan<- localapi.Event) error {
	for {
		err := c.Events(ctx, since, func(e localapi.Event) error {
			select {
			case news <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		var gone *localapi.Error
		if err != nil && !errors.Is(err, localapi.ErrNoDaemon) && !(errors.As(err, &gone) && gone.Code == localapi.CodeDaemon) {
			return err
		}
		since = 0 // all that the next daemon says is new
		select {
		case <-time.After(redrawEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// list prints a line for each event until there are no more.
func list(w io.Writer, output string, news <-chan localapi.Event, ended <-chan error) error {
	next := answer.Printer(w, output)
	for {
		select {
		case e := <-news:
			if answer.ForPrograms(output) {
				if err := next(e); err != nil {
					return err
				}
			} else if line, ok := describeEvent(e); ok {
				if _, err := fmt.Fprintln(words.Shown(w), line); err != nil {
					return err
				}
			}
		case err := <-ended:
			return err
		}
	}
}

// draw keeps a terminal up to date.
func draw(ctx context.Context, env *caller.Env, c *localapi.Client, news <-chan localapi.Event, ended <-chan error) error {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	fmt.Fprint(env.Out, "\x1b[2J")
	var lines []string
	for {
		s, err := session.Status(ctx, c)
		if err != nil {
			return err
		}
		if _, err := env.Out.Write(screen(s, lines, time.Now(), env.Coloured(env.Out))); err != nil {
			return err
		}
		select {
		case e := <-news:
			if line, ok := describeEvent(e); ok {
				lines = append(lines, line)
				lines = lines[max(0, len(lines)-shownEvents):]
			}
		case <-tick.C:
		case err := <-ended:
			return err
		}
	}
}

// screen draws over what is there and clears the rest, line by line and at the
// end, so that nothing flickers.
func screen(s localapi.Status, lines []string, now time.Time, coloured bool) []byte {
	var b bytes.Buffer
	out := words.Shown(&b)
	if coloured {
		printStatus(words.Shown(caller.Colour(&b)), s, now)
	} else {
		printStatus(out, s, now)
	}
	if len(lines) > 0 {
		fmt.Fprintln(&b)
	}
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	return []byte("\x1b[H" + strings.ReplaceAll(b.String(), "\n", "\x1b[K\n") + "\x1b[J")
}

// summary is a status in one line, in the form of an event.
func summary(s localapi.Status, now time.Time) string {
	e := localapi.Event{Time: now, Type: localapi.EventType(strings.ToLower(string(s.State))), Text: "nothing is connected"}
	var each []string
	for _, c := range s.Connections {
		e.Connection, e.Text = c.Name, describePath(c)
		each = append(each, c.Name+": "+e.Text)
	}
	if len(each) > 1 {
		e.Connection, e.Text = "", strings.Join(each, "; ")
	}
	line, _ := describeEvent(e)
	return line
}
