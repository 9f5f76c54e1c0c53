// Package progress tells what is under way: live on a terminal, line by line, or as JSON.
package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// The values of --progress.
const (
	Auto  = "auto"  // live on a terminal, else plain; none where a program reads both outputs
	Plain = "plain" // a line for each step that is over
	JSON  = "json"  // each event as a line of JSON
	None  = "none"
	// Live is plain, and the step that is under way stands on the last line
	// until it is over. Only auto leads to it.
	Live = "live"
	// Stream is json up to the end of connecting: whoever waits for that may
	// hang up then. Only -o json-stream leads to it.
	Stream = "stream"
)

var Modes = []string{Auto, Plain, JSON, None}

// Progress tells on stderr what has been done on the way to what was asked for, with
// the time since the start. It may be used from several goroutines.
type Progress struct {
	w    io.Writer
	mode string

	mu   sync.Mutex
	open bool // a step is under way on the last line
	over bool // nothing more is told
}

// New tells to w, in one of the modes.
func New(w io.Writer, mode string) *Progress { return &Progress{w: w, mode: mode} }

// Event tells what happens while connecting.
func (p *Progress) Event(e localapi.Event) {
	since := time.Duration(e.ElapsedMs) * time.Millisecond
	switch e.Type {
	case localapi.EventPhase:
		p.begin(e, since, string(e.Phase))
	case localapi.EventDone:
		p.Step(e, since, string(e.Phase), e.Text)
	case localapi.EventWarning:
		p.Step(e, since, "warning", e.Text)
	case localapi.EventMode:
		p.Step(e, since, string(e.Type), e.Code+": "+e.Text)
	default:
		p.Step(e, since, "", "")
		p.End()
	}
	if e.Type == localapi.EventReady && p.mode == Stream {
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
	}
}

// begin tells that a step has begun; e is the event that says so, for programs.
func (p *Progress) begin(e any, since time.Duration, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case JSON, Stream:
		p.encode(e)
	case Live:
		fmt.Fprintf(p.w, "\r%s  %-9s  ...\x1b[K", clock(since), name)
		p.open = true
	}
}

// Step tells that a step is over. One without a name is for programs alone.
func (p *Progress) Step(e any, since time.Duration, name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mode == JSON || p.mode == Stream:
		p.encode(e)
	case p.mode == None || name == "":
	default:
		p.endLocked()
		fmt.Fprintf(words.Shown(p.w), "%s  %-9s  %s\n", clock(since), name, text)
	}
}

// Steer tells a step on the way to a rule that was asked for at start, and what becomes
// of the rule.
func (p *Progress) Steer(e localapi.SteerEvent, start time.Time) {
	switch e.Type {
	case localapi.SteerInstead: // for whoever asked
	case localapi.SteerFailed, localapi.SteerReady:
		p.Step(e, 0, "", "")
	case localapi.SteerChanged:
		p.News(e, e.Rule.Name+": "+e.Text)
	default:
		p.Step(e, e.Time.Sub(start), string(e.Type), e.Text)
	}
}

// Say tells a step in a sentence.
func (p *Progress) Say(since time.Duration, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case JSON, Stream:
		p.encode(struct {
			ElapsedMs int64  `json:"elapsedMs"`
			Text      string `json:"text"`
		}{since.Milliseconds(), text})
	case None:
	default:
		fmt.Fprintf(words.Shown(p.w), "%s  %s\n", clock(since), text)
	}
}

// News tells what has become of something later.
func (p *Progress) News(e any, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.mode {
	case JSON, Stream:
		p.encode(e)
	case None:
	default:
		fmt.Fprintln(words.Shown(p.w), text)
	}
}

// End takes the step that is under way off the last line, for whatever comes.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked()
}

func (p *Progress) endLocked() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}

// encode prints a line; who does not read any more needs none.
func (p *Progress) encode(e any) {
	if !p.over {
		_ = json.NewEncoder(p.w).Encode(e)
	}
}

func clock(since time.Duration) string { return fmt.Sprintf("%5.1fs", since.Seconds()) }
