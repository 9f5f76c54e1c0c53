// Package progress tells what is under way: live on a terminal, line by line, or as JSON.
package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

// The values of --progress.
const (
	progressAuto  = "auto"  // live on a terminal, else plain; none where a program reads both outputs
	progressPlain = "plain" // a line for each step that is over
	progressJSON  = "json"  // each event as a line of JSON
	progressNone  = "none"
	// progressLive is plain, and the step that is under way stands on the last line
	// until it is over. Only auto leads to it.
	progressLive = "live"
	// progressStream is json up to the end of connecting: whoever waits for that may
	// hang up then. Only -o json-stream leads to it.
	progressStream = "stream"
)

var progressModes = []string{progressAuto, progressPlain, progressJSON, progressNone}

// progress tells on stderr what has been done on the way to what was asked for, with
// the time since the start. It may be used from several goroutines.
type progress struct {
	w    io.Writer
	mode string

	mu   sync.Mutex
	open bool // a step is under way on the last line
	over bool // nothing more is told
}

// newProgress tells to w, in one of the modes.
func newProgress(w io.Writer, mode string) *progress { return &progress{w: w, mode: mode} }

// event tells what happens while connecting.
func (p *progress) event(e localapi.Event) {
	since := time.Duration(e.ElapsedMs) * time.Millisecond
	switch e.Type {
	case localapi.EventPhase:
		p.begin(e, since, string(e.Phase))
	case localapi.EventDone:
		p.step(e, since, string(e.Phase), e.Text)
	case localapi.EventWarning:
		p.step(e, since, "warning", e.Text)
	case localapi.EventMode:
		p.step(e, since, string(e.Type), e.Code+": "+e.Text)
	default:
		p.step(e, since, "", "")
		p.end()
	}
	if e.Type == localapi.EventReady && p.mode == progressStream {
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
	}
}

// begin tells that a step has begun; e is the event that says so, for programs.
func (p *progress) begin(e any, since time.Duration, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case progressJSON, progressStream:
		p.encode(e)
	case progressLive:
		fmt.Fprintf(p.w, "\r%s  %-9s  ...\x1b[K", clock(since), name)
		p.open = true
	}
}

// step tells that a step is over. One without a name is for programs alone.
func (p *progress) step(e any, since time.Duration, name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mode == progressJSON || p.mode == progressStream:
		p.encode(e)
	case p.mode == progressNone || name == "":
	default:
		p.endLocked()
		fmt.Fprintf(p.w, "%s  %-9s  %s\n", clock(since), name, text)
	}
}

// steer tells a step on the way to a rule that was asked for at start, and what becomes
// of the rule.
func (p *progress) steer(e localapi.SteerEvent, start time.Time) {
	switch e.Type {
	case localapi.SteerInstead: // for whoever asked
	case localapi.SteerFailed, localapi.SteerReady:
		p.step(e, 0, "", "")
	case localapi.SteerChanged:
		p.news(e, e.Rule.Name+": "+e.Text)
	default:
		p.step(e, e.Time.Sub(start), string(e.Type), e.Text)
	}
}

// say tells a step in a sentence.
func (p *progress) say(since time.Duration, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case progressJSON, progressStream:
		p.encode(struct {
			ElapsedMs int64  `json:"elapsedMs"`
			Text      string `json:"text"`
		}{since.Milliseconds(), text})
	case progressNone:
	default:
		fmt.Fprintf(p.w, "%s  %s\n", clock(since), text)
	}
}

// news tells what has become of something later.
func (p *progress) news(e any, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case progressJSON, progressStream:
		p.encode(e)
	case progressNone:
	default:
		fmt.Fprintln(p.w, text)
	}
}

// end takes the step that is under way off the last line, for whatever comes.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
}

func (p *progress) endLocked() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}

// encode prints a line; who does not read any more needs none.
func (p *progress) encode(e any) {
	if !p.over {
		_ = json.NewEncoder(p.w).Encode(e)
	}
}

func clock(since time.Duration) string { return fmt.Sprintf("%5.1fs", since.Seconds()) }
