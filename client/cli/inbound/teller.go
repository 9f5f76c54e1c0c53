package inbound

import (
	"fmt"
	"io"
	"sync"
	"time"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// stopTime is for a rule or an exposure to go when its command is over.
const stopTime = 10 * time.Second

// teller prints what a command says that stays, as the command line wants it, one thing
// at a time.
type teller struct {
	env    *caller.Env
	output string
	mu     sync.Mutex
}

// tell prints v: for programs, or its name where names are wanted and it has one, or as
// text does for people.
func (t *teller) tell(v any, name string, text func(io.Writer)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case answer.ForPrograms(t.output):
		_ = answer.PrintNext(t.env.Out, t.output, v) // who does not read any more needs none
	case t.output != answer.Name:
		text(words.Shown(t.env.Out))
	case name != "":
		fmt.Fprintln(t.env.Out, name)
	}
}

// stays warns of what could not be ended when its command was over; err may be that it
// was gone already.
func (t *teller) stays(name string, err error) {
	if err == nil {
		return
	}
	switch session.NotConnected(err).Code {
	case localapi.CodeNotFound, localapi.CodeNotConnected:
	default:
		fmt.Fprintf(words.Shown(t.env.Err), "warning: %s may go on until its lease ends: %v\n", name, err)
	}
}
